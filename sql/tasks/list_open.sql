-- A page of one user's tasks that are not completed, newest first: those with an id of at most `newest`.
-- Served by tasks_open_idx, which holds open tasks only: a long history of completed ones is not read.
SELECT id, user_id, title, description, completed, version, created_at, updated_at
FROM tasks
WHERE user_id = %(user_id)s AND id <= %(newest)s AND NOT completed
ORDER BY id DESC
LIMIT %(rows)s
