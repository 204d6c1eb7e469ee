-- The newest entry of yoyo's log for each migration, newest first: `applying` and `reverting` say that a migration that
-- runs outside a transaction was begun and not finished, `failed` that the last attempt to apply it or to roll it back
-- changed nothing.
SELECT migration_id, operation
FROM (
    SELECT DISTINCT ON (migration_id) migration_id, operation, created_at_utc
    FROM {schema}._yoyo_log
    ORDER BY migration_id, created_at_utc DESC
) AS newest
ORDER BY created_at_utc DESC
