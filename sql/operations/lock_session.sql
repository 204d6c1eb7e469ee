-- The other session that holds the advisory lock `key` in this database.
SELECT session.pid, session.backend_start, session.application_name
FROM pg_catalog.pg_locks AS held INNER JOIN pg_catalog.pg_stat_activity AS session ON session.pid = held.pid
WHERE held.locktype = 'advisory' AND held.granted AND held.pid <> pg_catalog.pg_backend_pid()
    AND held.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
    AND (held.classid::bigint << 32 | held.objid::bigint) = %(key)s AND held.objsubid = 1
