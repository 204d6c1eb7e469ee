-- Removes the record of a migration that was rolled back.
DELETE FROM {schema}._yoyo_migration WHERE migration_hash = %(digest)s
