-- The schemas in which migrations are recorded, in whatever search path, with names in quotes where a statement needs them.
SELECT pg_catalog.quote_ident(space.nspname) AS name
FROM pg_catalog.pg_class AS relation INNER JOIN pg_catalog.pg_namespace AS space ON space.oid = relation.relnamespace
WHERE relation.relname = '_yoyo_migration'
ORDER BY name
