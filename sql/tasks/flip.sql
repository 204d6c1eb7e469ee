-- Flips completed. toggle.sql does the same where neither a value nor a condition is given, but costs PostgreSQL a third
-- more, and most clients ask for exactly this. If another transaction is changing the row, waits for it and then flips.
-- Returns the task as it now is; no row if the user has no such task. Served by tasks_pkey.
UPDATE {schema}.tasks
SET
    completed = NOT completed,
    version = version + 1,
    updated_at = greatest(updated_at, pg_catalog.statement_timestamp())
WHERE user_id = %(user_id)s AND id = %(task_id)s
RETURNING id, user_id, title, description, completed, version, created_at, updated_at
