-- Records the holder of the lock, and keeps plain yoyo out. The row of a holder that is dead is overwritten.
INSERT INTO {schema}.yoyo_lock (ctime, pid, holder)
VALUES (pg_catalog.clock_timestamp() AT TIME ZONE 'UTC', %(pid)s, %(holder)s)
ON CONFLICT (locked) DO UPDATE SET ctime = excluded.ctime, pid = excluded.pid, holder = excluded.holder
