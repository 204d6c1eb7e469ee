-- Frees the advisory lock `key`.
SELECT pg_catalog.pg_advisory_unlock(%(key)s)
