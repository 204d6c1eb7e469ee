-- What must be known about a new session before any other query: the schema of the service's tables, the schema in which
-- new tables would be made, the one in which migrations are recorded, the database's encoding, whether Citus is there, and
-- whether commits are durable.
-- Migrations are recorded where another table of theirs is, too: a schema in front may have another application's yoyo.
-- The search path says where to look, but a schema that stands in it only as "$user" counts only where its owner is this
-- role, the database's owner or a superuser: else any role that may create schemas could put its tables before the
-- service's.
-- Only tables count, and none with row security or columns that are computed when they are read: to read a view, say, runs
-- its owner's functions as this role.
-- Runs before the search path is set to pg_catalog, so every name is qualified, and every operator is one that cannot be
-- shadowed: both sides of each = have the same type.
WITH trusted AS (
    SELECT role.oid
    FROM pg_catalog.pg_roles AS role
    WHERE role.rolsuper
        OR role.rolname OPERATOR(pg_catalog.=) current_user
        OR role.oid OPERATOR(pg_catalog.=) (
            SELECT datdba FROM pg_catalog.pg_database
            WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
        )
),

path AS (
    SELECT space.oid, space.nspname AS name, entry.place
    FROM pg_catalog.unnest(pg_catalog.current_schemas(false)) WITH ORDINALITY AS entry (name, place)
    INNER JOIN pg_catalog.pg_namespace AS space ON space.nspname OPERATOR(pg_catalog.=) entry.name
    WHERE NOT pg_catalog.starts_with(space.nspname::pg_catalog.text, 'pg_')  -- PostgreSQL's, and what ends with a session
        AND (
            space.nspname OPERATOR(pg_catalog.<>) current_user
            OR pg_catalog.strpos(pg_catalog.current_setting('search_path'), '$user') OPERATOR(pg_catalog.=) 0
            OR EXISTS (SELECT FROM trusted WHERE trusted.oid OPERATOR(pg_catalog.=) space.nspowner)
        )
),

safe AS (
    SELECT relation.relname AS name, path.name AS schema, path.place
    FROM path INNER JOIN pg_catalog.pg_class AS relation ON relation.relnamespace OPERATOR(pg_catalog.=) path.oid
    WHERE relation.relkind OPERATOR(pg_catalog.=) ANY (ARRAY['r', 'p']::pg_catalog."char" [])
        AND NOT relation.relrowsecurity
        AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_attribute AS field
            WHERE field.attrelid OPERATOR(pg_catalog.=) relation.oid
                AND field.attgenerated OPERATOR(pg_catalog.=) 'v'::pg_catalog."char"
        )
),

recorded AS (
    SELECT safe.schema
    FROM safe LEFT JOIN safe AS made
        ON made.place OPERATOR(pg_catalog.=) safe.place
            AND made.name OPERATOR(pg_catalog.=) 'idempotency_keys'::pg_catalog.name
    WHERE safe.name OPERATOR(pg_catalog.=) '_yoyo_migration'::pg_catalog.name
    ORDER BY made.name IS NULL, safe.place
    LIMIT 1
)

SELECT
    coalesce((SELECT schema FROM recorded), (SELECT path.name FROM path ORDER BY path.place LIMIT 1)) AS schema,
    (SELECT path.name FROM path ORDER BY path.place LIMIT 1) AS new_schema,
    (SELECT schema FROM recorded) AS recorded_in,
    pg_catalog.current_setting('server_encoding') AS encoding,
    EXISTS (
        SELECT FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'citus'::pg_catalog.name
    ) AS citus,
    pg_catalog.current_setting('synchronous_commit') AS synchronous_commit
