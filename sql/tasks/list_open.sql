-- Returns a page of one user's tasks that are not completed, newest first, starting at the ID `newest`.
-- Index: tasks_open_idx. It holds only open tasks, so a long history of completed ones costs nothing.
SELECT id, user_id, title, description, completed, version, created_at, updated_at
FROM {schema}.tasks
WHERE user_id = %(user_id)s AND id <= %(newest)s AND NOT completed
ORDER BY id DESC
LIMIT %(rows)s
