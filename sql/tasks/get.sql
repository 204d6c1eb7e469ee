-- One task of one user, or no row where there is none or it is somebody else's.
-- Served by tasks_pkey.
SELECT id, user_id, title, description, completed, version, created_at, updated_at
FROM tasks
WHERE user_id = %(user_id)s AND id = %(task_id)s
