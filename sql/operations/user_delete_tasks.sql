-- Deletes one batch of a user's tasks. Returns no rows; the number deleted is the command's. Index: tasks_pkey.
DELETE FROM {schema}.tasks
WHERE user_id = %(user)s AND id IN (
    SELECT id FROM {schema}.tasks WHERE user_id = %(user)s ORDER BY id LIMIT %(rows)s
)
