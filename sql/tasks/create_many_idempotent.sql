-- Creates many tasks under an idempotency key, all or none, or finds what the key created before: create_idempotent.sql
-- for a JSON array of objects. Ids ascend in the order sent.
-- Returns one row, as create_idempotent.sql does. Served by idempotency_keys_pkey and users_pkey.
WITH item AS (
    SELECT item.*, pg_catalog.nextval('{schema}.tasks_id_seq'::regclass) AS id
    FROM ROWS FROM (
        pg_catalog.jsonb_to_recordset(%(tasks)s::jsonb) AS (title text, description text, completed boolean)
    ) WITH ORDINALITY AS item (title, description, completed, position)
    ORDER BY item.position
),

owner AS (
    INSERT INTO {schema}.users (id) VALUES (%(user_id)s) ON CONFLICT (id) DO NOTHING
),

record AS (
    INSERT INTO {schema}.idempotency_keys AS kept (user_id, operation, key, fingerprint, task_ids)
    SELECT %(user_id)s, 'batch', %(key)s, %(fingerprint)s, pg_catalog.array_agg(item.id ORDER BY item.position) FROM item
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
    SELECT %(user_id)s, item.id, item.title, item.description, item.completed
    FROM item INNER JOIN record ON record.task_ids[item.position] = item.id
    RETURNING id
)

SELECT
    record.user_id,
    record.fingerprint = %(fingerprint)s AS same_request,
    NOT EXISTS (SELECT FROM created) AS replayed,
    record.task_ids,
    record.created_at
FROM record
