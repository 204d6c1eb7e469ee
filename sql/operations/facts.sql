-- What the schema holds, a line for each fact: tables, columns, constraints, indexes, triggers and policies, and the
-- database's extensions. Names are bare: which schema the tables live in is the operator's choice. Partitions and the
-- tables of yoyo and of extensions are left out.
WITH ours AS (
    SELECT relation.oid, relation.relname, relation.relrowsecurity
    FROM pg_catalog.pg_class AS relation
    INNER JOIN pg_catalog.pg_namespace AS space ON space.oid = relation.relnamespace
    WHERE space.nspname = %(schema)s AND relation.relkind IN ('r', 'p') AND NOT relation.relispartition
        AND relation.relname NOT LIKE '%%yoyo%%'
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend WHERE objid = relation.oid AND deptype = 'e')
)

SELECT format('table %%s', relname) || CASE WHEN relrowsecurity THEN ' with row security' ELSE '' END AS fact FROM ours
UNION ALL
SELECT format('column %%s.%%s %%s', relname, attname, format_type(atttypid, atttypmod))
    || CASE WHEN attnotnull THEN ' not null' ELSE '' END
    || coalesce(' default ' || pg_get_expr(adbin, adrelid), '')
    || CASE attidentity WHEN 'a' THEN ' always identity' WHEN 'd' THEN ' by default identity' ELSE '' END
FROM ours
INNER JOIN pg_attribute ON attrelid = ours.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
UNION ALL
SELECT format('constraint %%s.%%s ', relname, conname)
    -- pg_get_constraintdef writes the referenced table with its schema, which is not on the search path.
    || replace(pg_get_constraintdef(pg_constraint.oid), format('REFERENCES %%I.', %(schema)s::text), 'REFERENCES ')
FROM ours INNER JOIN pg_constraint ON conrelid = ours.oid AND contype IN ('c', 'f', 'p', 'u', 'x') AND conparentid = 0
UNION ALL
SELECT format('index %%s.%%s ', ours.relname, index.relname)
    || regexp_replace(pg_get_indexdef(indexrelid), '^.* USING', 'using')
    || CASE WHEN indisunique THEN ' unique' ELSE '' END || CASE WHEN indisvalid THEN '' ELSE ' invalid' END
FROM ours INNER JOIN pg_index ON indrelid = ours.oid INNER JOIN pg_class AS index ON index.oid = indexrelid
UNION ALL
SELECT format('trigger %%s.%%s ', relname, tgname)
    || replace(pg_get_triggerdef(pg_trigger.oid), format(' ON %%I.', %(schema)s::text), ' ON ')
FROM ours INNER JOIN pg_trigger ON tgrelid = ours.oid AND NOT tgisinternal
UNION ALL
SELECT format('policy %%s.%%s', relname, polname) FROM ours INNER JOIN pg_policy ON polrelid = ours.oid
UNION ALL
SELECT format('extension %%s', extname) FROM pg_extension WHERE extname <> 'plpgsql'
