-- Adds the column that tells a changed file from the one that was applied. Plain yoyo ignores it.
ALTER TABLE {schema}._yoyo_migration ADD COLUMN IF NOT EXISTS checksum text
