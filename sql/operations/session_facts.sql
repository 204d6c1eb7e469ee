-- What a command must know before any other query: the schema that unqualified names create tables in, the
-- database's encoding, and the schema in which the search path finds the bookkeeping of migrations, if any does. Runs
-- before the search path is set to pg_catalog, so every name is qualified and every operator one that cannot be shadowed:
-- both sides of each = have the same type.
SELECT
    pg_catalog.current_schema() AS schema,
    pg_catalog.current_setting('server_encoding') AS encoding,
    (
        SELECT space.nspname
        FROM pg_catalog.pg_class AS relation
        INNER JOIN pg_catalog.pg_namespace AS space
            ON relation.relnamespace OPERATOR(pg_catalog.=) space.oid
        WHERE relation.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('_yoyo_migration')::pg_catalog.oid
    ) AS recorded_in
