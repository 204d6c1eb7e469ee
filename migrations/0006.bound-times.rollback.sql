-- Rolls back 0006: SQL can again store times that the API cannot show.

SET lock_timeout = '500ms';

ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_times_shown;

ALTER TABLE tasks DROP CONSTRAINT tasks_times_shown;

ALTER TABLE users DROP CONSTRAINT users_times_shown;
