-- Counts the idempotency records that are older than 24 hours, %(rows)s at most, and returns the creation time of the
-- oldest as seconds since 1970, NULL where there is none. For /metrics, asked once a minute at most.
-- Index: idempotency_keys_created_at_idx alone.
SELECT pg_catalog.count(*)::integer AS records, extract(EPOCH FROM pg_catalog.min(created_at))::double precision AS oldest
FROM (
    SELECT created_at
    FROM {schema}.idempotency_keys
    WHERE created_at <= pg_catalog.now() - interval '24 hours'
    ORDER BY created_at
    LIMIT %(rows)s
) AS expired
