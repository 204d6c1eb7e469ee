-- Adds the column that says who holds the lock; plain yoyo neither needs nor minds it.
ALTER TABLE {schema}.yoyo_lock ADD COLUMN IF NOT EXISTS holder text
