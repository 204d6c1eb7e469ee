-- Creates a task under an idempotency key, or finds what the key created before.
-- Of two such statements at once, the later one waits at the key's row for the earlier one and then sees its record: of
-- PostgreSQL's forms only ON CONFLICT DO UPDATE returns a row that was committed after the statement began. A record older
-- than 24 hours counts as never used. The id is taken beforehand, so that one statement can write it to both tables.
-- Returns one row: the owner, whether the key was first used with the same request (`same_request`), whether nothing was
-- created now (`replayed`), the ids of the created rows and their time. Served by idempotency_keys_pkey and users_pkey.
WITH wanted AS (
    SELECT pg_catalog.nextval('{schema}.tasks_id_seq'::regclass) AS id
),

owner AS (
    INSERT INTO {schema}.users (id) VALUES (%(user_id)s) ON CONFLICT (id) DO NOTHING
),

record AS (
    INSERT INTO {schema}.idempotency_keys AS kept (user_id, operation, key, fingerprint, task_ids)
    SELECT %(user_id)s, 'create', %(key)s, %(fingerprint)s, ARRAY[wanted.id] FROM wanted
    ON CONFLICT (user_id, operation, key) DO UPDATE SET
        fingerprint = CASE
            WHEN excluded.created_at - kept.created_at < interval '24 hours' THEN kept.fingerprint
            ELSE excluded.fingerprint
        END,
        task_ids = CASE
            WHEN excluded.created_at - kept.created_at < interval '24 hours' THEN kept.task_ids
            ELSE excluded.task_ids
        END,
        created_at = CASE
            WHEN excluded.created_at - kept.created_at < interval '24 hours' THEN kept.created_at
            ELSE excluded.created_at
        END
    RETURNING user_id, fingerprint, task_ids, created_at
),

created AS (
    INSERT INTO {schema}.tasks (user_id, id, title, description, completed)
    OVERRIDING SYSTEM VALUE
    SELECT %(user_id)s, wanted.id, %(title)s, %(description)s, %(completed)s
    FROM wanted INNER JOIN record ON record.task_ids[1] = wanted.id
    RETURNING id
)

SELECT
    record.user_id,
    record.fingerprint = %(fingerprint)s AS same_request,
    NOT EXISTS (SELECT FROM created) AS replayed,
    record.task_ids,
    record.created_at
FROM record
