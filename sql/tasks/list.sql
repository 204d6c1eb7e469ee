-- Returns a page of one user's tasks, newest first, starting at the ID `newest`.
-- Index: tasks_pkey, read backwards from `newest`, so a page costs the same wherever it is.
SELECT id, user_id, title, description, completed, version, created_at, updated_at
FROM {schema}.tasks
WHERE user_id = %(user_id)s AND id <= %(newest)s
ORDER BY id DESC
LIMIT %(rows)s
