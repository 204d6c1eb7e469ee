-- Takes the advisory lock `key` for this session, if it is free; returns whether it did.
SELECT pg_catalog.pg_try_advisory_lock(%(key)s)
