-- Deletes one batch of idempotency records that are older than 24 hours. Returns no rows. Safe while serving: a record
-- that a request is using at the moment is locked, and skipped. Index: idempotency_keys_created_at_idx.
DELETE FROM {schema}.idempotency_keys
WHERE (user_id, operation, key) IN (
    SELECT user_id, operation, key
    FROM {schema}.idempotency_keys
    WHERE created_at <= pg_catalog.now() - interval '24 hours'
    ORDER BY created_at
    LIMIT %(rows)s
    FOR UPDATE SKIP LOCKED
)
