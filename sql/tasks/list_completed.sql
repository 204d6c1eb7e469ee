-- Returns a page of one user's completed tasks, newest first, starting at the ID `newest`.
-- Index: tasks_pkey, read backwards from `newest`. Open tasks are filtered out; they are the minority.
SELECT id, user_id, title, description, completed, version, created_at, updated_at
FROM {schema}.tasks
WHERE user_id = %(user_id)s AND id <= %(newest)s AND completed
ORDER BY id DESC
LIMIT %(rows)s
