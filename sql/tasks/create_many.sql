-- Creates many tasks, all or none, and the user's row with the first ones. `tasks` is a JSON array of objects.
-- Ids ascend in the order sent. Of the new rows it returns what the caller does not know, and by which it tells that
-- they are those that it sent: descriptions of 8 MiB need not come back. Served by users_pkey.
WITH owner AS (
    INSERT INTO {schema}.users (id) VALUES (%(user_id)s) ON CONFLICT (id) DO NOTHING
)
INSERT INTO {schema}.tasks (user_id, title, description, completed)
SELECT %(user_id)s, item.title, item.description, item.completed
FROM ROWS FROM (
    pg_catalog.jsonb_to_recordset(%(tasks)s::jsonb) AS (title text, description text, completed boolean)
) WITH ORDINALITY AS item (title, description, completed, position)
ORDER BY item.position
RETURNING id, user_id, title, created_at
