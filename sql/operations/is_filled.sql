-- Whether the database holds any relation that is not PostgreSQL's own. A restore into it would mix the two.
SELECT exists(
    SELECT FROM pg_catalog.pg_class AS relation
    INNER JOIN pg_catalog.pg_namespace AS space ON space.oid = relation.relnamespace
    WHERE space.nspname NOT LIKE 'pg\_%%' AND space.nspname <> 'information_schema'
)
