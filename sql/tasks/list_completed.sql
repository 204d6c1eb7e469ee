-- A page of one user's completed tasks, newest first: those with an id of at most `newest`.
-- Served by tasks_pkey, read backwards from `newest`, passing over open tasks: completed ones are the many.
SELECT id, user_id, title, description, completed, version, created_at, updated_at
FROM tasks
WHERE user_id = %(user_id)s AND id <= %(newest)s AND completed
ORDER BY id DESC
LIMIT %(rows)s
