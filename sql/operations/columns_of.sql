-- The columns of a table, in order.
SELECT attribute.attname
FROM pg_catalog.pg_attribute AS attribute
INNER JOIN pg_catalog.pg_class AS relation ON relation.oid = attribute.attrelid
INNER JOIN pg_catalog.pg_namespace AS space ON space.oid = relation.relnamespace
WHERE space.nspname = %(schema)s AND relation.relname = %(name)s
    AND attribute.attnum > 0 AND NOT attribute.attisdropped
ORDER BY attribute.attnum
