-- Which of the given objects exist already, by their position in the arrays, and their kind. A table, an index, a
-- sequence and a view share their names. `tables` holds what a column, constraint, trigger, policy or rule belongs to.
WITH wanted AS (
    SELECT item.position, item.kind, item.name, relation.oid AS relation, space.oid AS space
    FROM ROWS FROM (
        pg_catalog.unnest(%(kinds)s::text []),
        pg_catalog.unnest(%(names)s::text []),
        pg_catalog.unnest(%(tables)s::text []),
        pg_catalog.unnest(%(schemas)s::text [])
    ) WITH ORDINALITY AS item (kind, name, belongs_to, schema, position)
    LEFT JOIN pg_catalog.pg_namespace AS space ON space.nspname = item.schema
    LEFT JOIN pg_catalog.pg_class AS relation
        ON relation.relnamespace = space.oid AND relation.relname = item.belongs_to
)

SELECT wanted.position, CASE relation.relkind
    WHEN 'i' THEN 'an index of ' || (SELECT indrelid::regclass::text FROM pg_catalog.pg_index WHERE indexrelid = relation.oid)
    WHEN 'I' THEN 'an index of ' || (SELECT indrelid::regclass::text FROM pg_catalog.pg_index WHERE indexrelid = relation.oid)
    WHEN 'S' THEN 'a sequence'
    WHEN 'v' THEN 'a view'
    WHEN 'm' THEN 'a materialized view'
    WHEN 'c' THEN 'a type'
    ELSE 'a table'
END AS what
FROM wanted INNER JOIN pg_catalog.pg_class AS relation
    ON relation.relnamespace = wanted.space AND relation.relname = wanted.name
WHERE wanted.kind IN ('table', 'index', 'sequence', 'view', 'type')
UNION ALL
SELECT wanted.position, 'a type' AS what
FROM wanted INNER JOIN pg_catalog.pg_type AS found ON found.typnamespace = wanted.space AND found.typname = wanted.name
WHERE wanted.kind IN ('table', 'view', 'type') AND found.typrelid = 0
UNION ALL
SELECT wanted.position, 'a function' AS what
FROM wanted INNER JOIN pg_catalog.pg_proc AS found ON found.pronamespace = wanted.space AND found.proname = wanted.name
WHERE wanted.kind = 'function'
UNION ALL
SELECT wanted.position, 'a column' AS what
FROM wanted INNER JOIN pg_catalog.pg_attribute AS found ON found.attrelid = wanted.relation AND found.attname = wanted.name
WHERE wanted.kind = 'column' AND NOT found.attisdropped
UNION ALL
SELECT wanted.position, 'a constraint' AS what
FROM wanted INNER JOIN pg_catalog.pg_constraint AS found ON found.conrelid = wanted.relation AND found.conname = wanted.name
WHERE wanted.kind = 'constraint'
UNION ALL
SELECT wanted.position, 'a trigger' AS what
FROM wanted INNER JOIN pg_catalog.pg_trigger AS found ON found.tgrelid = wanted.relation AND found.tgname = wanted.name
WHERE wanted.kind = 'trigger'
UNION ALL
SELECT wanted.position, 'a policy' AS what
FROM wanted INNER JOIN pg_catalog.pg_policy AS found ON found.polrelid = wanted.relation AND found.polname = wanted.name
WHERE wanted.kind = 'policy'
UNION ALL
SELECT wanted.position, 'a rule' AS what
FROM wanted INNER JOIN pg_catalog.pg_rewrite AS found ON found.ev_class = wanted.relation AND found.rulename = wanted.name
WHERE wanted.kind = 'rule'
UNION ALL
SELECT wanted.position, 'a schema' AS what
FROM wanted INNER JOIN pg_catalog.pg_namespace AS found ON found.nspname = wanted.name
WHERE wanted.kind = 'schema'
UNION ALL
SELECT wanted.position, 'statistics' AS what
FROM wanted
INNER JOIN pg_catalog.pg_statistic_ext AS found ON found.stxnamespace = wanted.space AND found.stxname = wanted.name
WHERE wanted.kind = 'statistics'
UNION ALL
SELECT wanted.position, 'a collation' AS what
FROM wanted
INNER JOIN pg_catalog.pg_collation AS found ON found.collnamespace = wanted.space AND found.collname = wanted.name
WHERE wanted.kind = 'collation'
UNION ALL
SELECT wanted.position, 'an event trigger' AS what
FROM wanted INNER JOIN pg_catalog.pg_event_trigger AS found ON found.evtname = wanted.name
WHERE wanted.kind = 'event trigger'
UNION ALL
SELECT wanted.position, 'a publication' AS what
FROM wanted INNER JOIN pg_catalog.pg_publication AS found ON found.pubname = wanted.name
WHERE wanted.kind = 'publication'
ORDER BY position
