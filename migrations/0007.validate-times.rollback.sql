-- Rolls back 0007: nothing is lost. The constraints of 0006 hold for new rows only, as before.

SET lock_timeout = '500ms';

ALTER TABLE users DROP CONSTRAINT users_times_shown;

ALTER TABLE users ADD CONSTRAINT users_times_shown CHECK (
    created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'
) NOT VALID;

ALTER TABLE tasks DROP CONSTRAINT tasks_times_shown;

ALTER TABLE tasks ADD CONSTRAINT tasks_times_shown CHECK (
    created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'
    AND updated_at >= '0001-01-01 00:00:00+00' AND updated_at < '10000-01-01 00:00:00+00'
) NOT VALID;

ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_times_shown;

ALTER TABLE idempotency_keys ADD CONSTRAINT idempotency_keys_times_shown CHECK (
    created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'
) NOT VALID;
