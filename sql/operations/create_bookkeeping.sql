-- yoyo's tables as yoyo 6 to 9 makes them (its internalmigrations/v2.py), and the checksum of the SQL that was applied.
-- Several statements, because the first migration needs all of them or none; they run in one transaction.
CREATE TABLE {schema}._yoyo_migration (
    migration_hash varchar(64),
    migration_id varchar(255),
    applied_at_utc timestamp,
    PRIMARY KEY (migration_hash)
);

CREATE TABLE {schema}._yoyo_log (
    id varchar(36),
    migration_hash varchar(64),
    migration_id varchar(255),
    operation varchar(10),
    username varchar(255),
    hostname varchar(255),
    comment varchar(255),
    created_at_utc timestamp,
    PRIMARY KEY (id)
);

CREATE TABLE {schema}._yoyo_version (
    version int NOT NULL,
    installed_at_utc timestamp,
    PRIMARY KEY (version)
);

INSERT INTO {schema}._yoyo_version (version, installed_at_utc)
VALUES (2, pg_catalog.statement_timestamp() AT TIME ZONE 'UTC')
