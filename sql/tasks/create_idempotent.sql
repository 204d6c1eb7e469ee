-- Creates a task under an idempotency key, or finds out what the key made before.
-- Of two at once, the later waits for the earlier at the key's row and then sees it: ON CONFLICT DO UPDATE is the one
-- form that returns a row committed after this statement began. A record older than 24 hours counts as never used.
-- The id is taken beforehand, so that one statement can write it to both tables.
-- Answers one row: whether the body is the one the key was first used with, whether this is a replay, what was made.
-- Served by idempotency_keys_pkey and users_pkey.
WITH wanted AS (
    SELECT nextval('tasks_id_seq') AS id
),

owner AS (
    INSERT INTO users (id) VALUES (%(user_id)s) ON CONFLICT (id) DO NOTHING
),

record AS (
    INSERT INTO idempotency_keys AS kept (user_id, operation, key, fingerprint, task_ids)
    SELECT %(user_id)s, 'create', %(key)s, %(fingerprint)s, ARRAY[wanted.id] FROM wanted
    ON CONFLICT (user_id, operation, key) DO UPDATE SET
        fingerprint = CASE
            WHEN kept.created_at > now() - interval '24 hours' THEN kept.fingerprint ELSE excluded.fingerprint
        END,
        task_ids = CASE
            WHEN kept.created_at > now() - interval '24 hours' THEN kept.task_ids ELSE excluded.task_ids
        END,
        created_at = CASE
            WHEN kept.created_at > now() - interval '24 hours' THEN kept.created_at ELSE excluded.created_at
        END
    RETURNING fingerprint, task_ids, created_at
),

created AS (
    INSERT INTO tasks (user_id, id, title, description, completed)
    OVERRIDING SYSTEM VALUE
    SELECT %(user_id)s, wanted.id, %(title)s, %(description)s, %(completed)s
    FROM wanted INNER JOIN record ON record.task_ids[1] = wanted.id
    RETURNING id
)

SELECT
    record.fingerprint = %(fingerprint)s AS matched,
    NOT EXISTS (SELECT FROM created) AS replayed,
    record.task_ids,
    record.created_at
FROM record
