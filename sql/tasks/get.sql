-- One task of one user; no row if there is none, or if it belongs to another user.
-- Served by tasks_pkey.
SELECT id, user_id, title, description, completed, version, created_at, updated_at
FROM {schema}.tasks
WHERE user_id = %(user_id)s AND id = %(task_id)s
