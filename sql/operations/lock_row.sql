-- yoyo's row of the migration lock, and its holder. `to_jsonb`, because yoyo's own table has no column for that.
SELECT held.pid, held.ctime, pg_catalog.to_jsonb(held) ->> 'holder' AS holder FROM {schema}.yoyo_lock AS held
