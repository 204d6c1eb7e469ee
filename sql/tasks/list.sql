-- A page of one user's tasks, newest first: those with an id of at most `newest`.
-- Served by tasks_pkey, read backwards from `newest`: the cost is that of the page, however many tasks there are.
SELECT id, user_id, title, description, completed, version, created_at, updated_at
FROM tasks
WHERE user_id = %(user_id)s AND id <= %(newest)s
ORDER BY id DESC
LIMIT %(rows)s
