-- Times that the API can show: years 1 to 9999. PostgreSQL also holds infinity and years that RFC 3339 has no form for;
-- one such row, written with SQL, made a user's whole list fail. NOT VALID: new rows are checked from now on, and 0007
-- checks the old ones without blocking writes.
-- Deploy: pre.
-- depends: 0005.create-service-role

SET lock_timeout = '500ms';

ALTER TABLE users ADD CONSTRAINT users_times_shown CHECK (
    created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'
) NOT VALID;

ALTER TABLE tasks ADD CONSTRAINT tasks_times_shown CHECK (
    created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'
    AND updated_at >= '0001-01-01 00:00:00+00' AND updated_at < '10000-01-01 00:00:00+00'
) NOT VALID;

ALTER TABLE idempotency_keys ADD CONSTRAINT idempotency_keys_times_shown CHECK (
    created_at >= '0001-01-01 00:00:00+00' AND created_at < '10000-01-01 00:00:00+00'
) NOT VALID;
