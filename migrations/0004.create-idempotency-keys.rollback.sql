-- Rolls back 0004: a retry of a keyed request of the last 24 hours creates again. Tasks stay.

SET lock_timeout = '500ms';

DROP TABLE idempotency_keys;
