-- yoyo's table for its own lock, as yoyo makes it.
CREATE TABLE IF NOT EXISTS {schema}.yoyo_lock (
    locked int DEFAULT 1,
    ctime timestamp,
    pid int NOT NULL,
    PRIMARY KEY (locked)
)
