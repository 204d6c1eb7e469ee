-- Creates a task, and the user's row with the first one: no user has to be registered beforehand.
-- Two first tasks at once make one row in users: the later insert waits for the earlier one and then does nothing.
-- Served by users_pkey.
WITH owner AS (
    INSERT INTO {schema}.users (id) VALUES (%(user_id)s) ON CONFLICT (id) DO NOTHING
)
INSERT INTO {schema}.tasks (user_id, title, description, completed)
VALUES (%(user_id)s, %(title)s, %(description)s, %(completed)s)
RETURNING id, user_id, title, description, completed, version, created_at, updated_at
