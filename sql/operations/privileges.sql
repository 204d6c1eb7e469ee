-- What a role may do with each table, column and sequence of the schema, itself or as a member of another role. What
-- belongs to an extension is left out: it is open to everybody by the extension's choice. Names are in quotes where a
-- statement needs them.
WITH relation AS (
    SELECT found.oid, found.relname, found.relkind
    FROM pg_class AS found INNER JOIN pg_namespace AS space ON space.oid = found.relnamespace
    WHERE space.nspname = %(schema)s AND found.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT found.relispartition
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = found.oid AND deptype = 'e')
)

SELECT format('%%s on %%I', privilege, relname) AS held
FROM relation, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
WHERE relkind <> 'S' AND has_table_privilege(%(role)s, oid, privilege)
UNION ALL
SELECT format('%%s of %%I.%%I', privilege, relname, attname)
FROM relation INNER JOIN pg_attribute ON attrelid = oid AND attnum > 0 AND NOT attisdropped,
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS privilege
WHERE relkind <> 'S' AND has_column_privilege(%(role)s, oid, attnum, privilege)
    AND NOT has_table_privilege(%(role)s, oid, privilege)
UNION ALL
SELECT format('%%s on %%I', privilege, relname)
FROM relation, unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) AS privilege
WHERE relkind = 'S' AND has_sequence_privilege(%(role)s, oid, privilege)
