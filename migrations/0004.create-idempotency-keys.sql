-- Idempotency keys: what a POST with a key created, kept for 24 hours, so that a retry gets the first response and
-- creates nothing (sql/tasks/create_idempotent.sql, create_many_idempotent.sql). A record holds only what the retry
-- does not carry itself: the IDs and the time. Requests use the primary key; the index on created_at is for
-- `tasks-service prune`.
-- Deploy: pre.
-- depends: 0003.index-open-tasks
-- replaces: 9ac285f9ead79e138600bbfd973c331f9024783724bf8182ab6e85a1e5344eb7

SET lock_timeout = '500ms';

CREATE TABLE idempotency_keys (
    user_id text NOT NULL,
    operation text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    task_ids bigint [] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, operation, key),
    CONSTRAINT idempotency_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
    CONSTRAINT idempotency_keys_operation_known CHECK (operation IN ('create', 'batch')),
    CONSTRAINT idempotency_keys_key_length CHECK (pg_catalog.char_length(key) BETWEEN 1 AND 255)
);

CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
