-- About how many rows each of the tables has, by PostgreSQL's own estimate; only tables that are on disk at all.
SELECT relation.relname AS name, greatest(relation.reltuples, 0)::bigint AS estimate
FROM pg_catalog.pg_class AS relation
INNER JOIN pg_catalog.pg_namespace AS space ON space.oid = relation.relnamespace
WHERE space.nspname = %(schema)s AND relation.relname = ANY (%(names)s::text [])
    AND (relation.relkind = 'p' OR pg_catalog.pg_relation_size(relation.oid) > 0)
