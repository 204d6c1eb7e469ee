-- Takes the advisory lock `key` until the transaction ends, if it is free; returns whether it did. For poolers, behind
-- which the next transaction may run in another session.
SELECT pg_catalog.pg_try_advisory_xact_lock(%(key)s)
