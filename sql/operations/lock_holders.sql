-- The sessions that hold a lock on any of the relations `names`, the longest transaction first. What another role's
-- session runs is shown to members of pg_read_all_stats only.
SELECT DISTINCT
    session.pid,
    session.usename,
    session.application_name,
    session.state,
    session.xact_start,
    session.query
FROM pg_catalog.pg_locks AS held
INNER JOIN pg_catalog.pg_class AS relation ON relation.oid = held.relation
INNER JOIN pg_catalog.pg_namespace AS space ON space.oid = relation.relnamespace
INNER JOIN pg_catalog.pg_stat_activity AS session ON session.pid = held.pid
WHERE held.granted AND held.pid <> pg_catalog.pg_backend_pid() AND space.nspname = %(schema)s
    AND relation.relname = ANY (%(names)s::text [])
    AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
ORDER BY session.xact_start
