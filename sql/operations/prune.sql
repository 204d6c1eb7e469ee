-- Removes a small batch of idempotency records past their 24 hours; answers nothing. Safe while serving: a record that a
-- request is just using again is locked, and passed over. Served by idempotency_keys_created_at_idx.
DELETE FROM idempotency_keys
WHERE (user_id, operation, key) IN (
    SELECT user_id, operation, key
    FROM idempotency_keys
    WHERE created_at <= now() - interval '24 hours'
    ORDER BY created_at
    LIMIT %(rows)s
    FOR UPDATE SKIP LOCKED
)
