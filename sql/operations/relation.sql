-- Whether this role may read the table of that name in the schema; no row where there is none. A view is none, nor is a table
-- with row security or columns that are computed when they are read: to read it would run its owner's functions.
SELECT pg_catalog.has_table_privilege(relation.oid, 'SELECT') AS readable
FROM pg_catalog.pg_class AS relation INNER JOIN pg_catalog.pg_namespace AS space ON space.oid = relation.relnamespace
WHERE relation.relname = %(name)s AND space.nspname = %(schema)s
    AND relation.relkind IN ('r', 'p')
    AND NOT relation.relrowsecurity
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = relation.oid AND attgenerated = 'v')
