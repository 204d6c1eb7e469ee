-- Records a migration as applied, as yoyo does; `digest` is yoyo's key, of the id.
INSERT INTO {schema}._yoyo_migration (migration_hash, migration_id, applied_at_utc, checksum)
VALUES (%(digest)s, %(id)s, pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', %(checksum)s)
