-- Removes yoyo's row of the migration lock.
DELETE FROM {schema}.yoyo_lock
