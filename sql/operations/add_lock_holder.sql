-- Adds the column for the holder of the lock. Plain yoyo ignores it.
ALTER TABLE {schema}.yoyo_lock ADD COLUMN IF NOT EXISTS holder text
