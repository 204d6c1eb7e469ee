-- An entry in yoyo's log, as yoyo writes it: `apply` or `rollback` when done, and here also `applying`, `reverting` and
-- `failed` (last_operations.sql).
INSERT INTO {schema}._yoyo_log (id, migration_hash, migration_id, operation, username, hostname, created_at_utc)
VALUES (
    pg_catalog.gen_random_uuid()::text,
    %(digest)s,
    %(id)s,
    %(operation)s,
    %(username)s,
    %(hostname)s,
    pg_catalog.clock_timestamp() AT TIME ZONE 'UTC'
)
