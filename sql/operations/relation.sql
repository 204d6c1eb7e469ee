-- Whether this role may read the table, index, sequence or view of that name in the schema; no row where there is none.
SELECT pg_catalog.has_table_privilege(relation.oid, 'SELECT') AS readable
FROM pg_catalog.pg_class AS relation INNER JOIN pg_catalog.pg_namespace AS space ON space.oid = relation.relnamespace
WHERE relation.relname = %(name)s AND space.nspname = %(schema)s
