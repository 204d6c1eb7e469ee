-- How Citus holds each of its tables of the schema: by hash (h) of which column, as a reference table (n), or else. Runs
-- only where the extension is installed. Tables with one colocation ID have their rows of one user on one node. The
-- coordinator is group 0: `on_workers` is false where it has every shard.
SELECT
    relation.relname AS name,
    part.partmethod::text AS method,
    CASE WHEN part.partmethod = 'h' THEN column_to_column_name(part.logicalrelid, part.partkey) END AS by_column,
    part.colocationid AS colocation,
    EXISTS (
        SELECT FROM pg_dist_shard AS shard
        INNER JOIN pg_dist_placement AS placement ON placement.shardid = shard.shardid
        WHERE shard.logicalrelid = part.logicalrelid AND placement.groupid <> 0
    ) AS on_workers
FROM pg_dist_partition AS part
INNER JOIN pg_class AS relation ON relation.oid = part.logicalrelid::oid
INNER JOIN pg_namespace AS space ON space.oid = relation.relnamespace
WHERE space.nspname = %(schema)s
