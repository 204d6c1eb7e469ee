"""A stand-in for the extension citus in a database: its catalog and the functions that `migrate distribute` calls. Like
Citus, they refuse a key without the distribution column and a table that is distributed already. Citus itself is in no
registry; signatures are those of Citus 10.1 to 13.
"""

import psycopg

STAND_IN = """
SET allow_system_table_mods = on;

CREATE TABLE pg_catalog.pg_dist_partition (
    logicalrelid regclass PRIMARY KEY, partmethod "char" NOT NULL, partkey text, colocationid int NOT NULL
);
CREATE TABLE pg_catalog.pg_dist_shard (logicalrelid regclass NOT NULL, shardid bigint PRIMARY KEY);
CREATE TABLE pg_catalog.pg_dist_placement (shardid bigint NOT NULL, groupid int NOT NULL);
GRANT SELECT ON pg_catalog.pg_dist_partition, pg_catalog.pg_dist_shard, pg_catalog.pg_dist_placement TO PUBLIC;
CREATE TABLE public.worker_commands (command text);

CREATE FUNCTION pg_catalog.column_to_column_name(table_name regclass, column_var_text text) RETURNS text
LANGUAGE sql IMMUTABLE AS 'SELECT column_var_text';

CREATE FUNCTION pg_catalog.create_distributed_table(
    table_name regclass, distribution_column text, distribution_type text DEFAULT 'hash',
    colocate_with text DEFAULT 'default', shard_count int DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    group_id int;
BEGIN
    IF EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = table_name) THEN
        RAISE EXCEPTION 'table % is already distributed', table_name USING ERRCODE = '42P16';
    END IF;
    IF EXISTS (
        SELECT FROM pg_index WHERE indrelid = table_name AND indisunique AND NOT (
            SELECT attnum FROM pg_attribute WHERE attrelid = table_name AND attname = distribution_column
        ) = ANY (indkey)
    ) THEN
        RAISE EXCEPTION 'cannot create constraint on %', table_name USING ERRCODE = '42P16',
            DETAIL = 'Distributed relations cannot have UNIQUE, EXCLUDE, or PRIMARY KEY constraints that do not '
            'include the partition column (with an equality operator if EXCLUDE).';
    END IF;
    IF colocate_with = 'none' THEN
        SELECT coalesce(max(colocationid), 0) + 1 INTO group_id FROM pg_dist_partition;
    ELSE
        SELECT colocationid INTO STRICT group_id FROM pg_dist_partition WHERE logicalrelid = colocate_with::regclass;
    END IF;
    INSERT INTO pg_dist_partition VALUES (table_name, 'h', distribution_column, group_id);
    INSERT INTO pg_dist_shard VALUES (table_name, table_name::oid::bigint);
    INSERT INTO pg_dist_placement VALUES (table_name::oid::bigint, 1);
END $$;

CREATE FUNCTION pg_catalog.create_reference_table(table_name regclass) RETURNS void LANGUAGE sql AS $$
    INSERT INTO pg_dist_partition VALUES (table_name, 'n', NULL, 99);
$$;

CREATE FUNCTION pg_catalog.run_command_on_workers(
    command text, parallel boolean DEFAULT true,
    OUT nodename text, OUT nodeport int, OUT success boolean, OUT result text
) RETURNS SETOF record LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.worker_commands VALUES (command);
    RETURN QUERY SELECT 'worker' || n, 5432, true, 'GRANT' FROM generate_series(1, 2) AS n;
END $$;

INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
SELECT 99999, 'citus', 10, oid, false, '13.2-1' FROM pg_namespace WHERE nspname = 'pg_catalog';
"""


def install(url: str) -> None:
    """Puts the stand-in into the database."""
    with psycopg.connect(url) as connection:
        connection.execute(STAND_IN.encode())
