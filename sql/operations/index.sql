-- The table of an index and whether the index is valid; a build that was cut short or failed leaves one that is not.
SELECT relation.relname AS table_name, found.indisvalid AS is_valid
FROM pg_catalog.pg_index AS found
INNER JOIN pg_catalog.pg_class AS index ON index.oid = found.indexrelid
INNER JOIN pg_catalog.pg_class AS relation ON relation.oid = found.indrelid
INNER JOIN pg_catalog.pg_namespace AS space ON space.oid = index.relnamespace
WHERE space.nspname = %(schema)s AND index.relname = %(name)s
