-- The migrations that are recorded as applied, oldest first. `to_jsonb`, because yoyo's own table has no column for the
-- checksum: it is added with the first migration that is applied here.
SELECT applied.migration_id, applied.applied_at_utc, pg_catalog.to_jsonb(applied) ->> 'checksum' AS checksum
FROM {schema}._yoyo_migration AS applied
ORDER BY applied.applied_at_utc, applied.migration_id
