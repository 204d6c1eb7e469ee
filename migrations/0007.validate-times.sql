-- Checks the rows that were there before 0006, while reads and writes go on. A row that fails it has to be corrected
-- first: SELECT user_id, id FROM tasks WHERE created_at >= '10000-01-01' OR updated_at >= '10000-01-01' finds such rows.
-- Deploy: pre.
-- depends: 0006.bound-times

SET lock_timeout = '500ms';

ALTER TABLE users VALIDATE CONSTRAINT users_times_shown;

ALTER TABLE tasks VALIDATE CONSTRAINT tasks_times_shown;

ALTER TABLE idempotency_keys VALIDATE CONSTRAINT idempotency_keys_times_shown;
