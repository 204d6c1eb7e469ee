-- Takes back 0004: retries of the last 24 hours' keyed requests create again. Tasks stay.

SET lock_timeout = '500ms';

DROP TABLE IF EXISTS idempotency_keys;
