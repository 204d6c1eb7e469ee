-- Takes back 0004: retries of the last 24 hours' keyed requests create again. Tasks stay.

SET lock_timeout = '5s';

DROP TABLE IF EXISTS idempotency_keys;
