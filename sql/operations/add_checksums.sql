-- Adds the column that tells a changed file from the one that was applied; plain yoyo neither needs nor minds it.
ALTER TABLE {schema}._yoyo_migration ADD COLUMN IF NOT EXISTS checksum text
