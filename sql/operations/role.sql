-- The role in use: its name, the owner of the tables (the role itself where there are none), whether it may act as that
-- owner, whether it has what is granted to the service's role, and which powers it has beyond what a service needs.
SELECT
    role.rolname AS name,
    coalesce(owner.rolname, role.rolname) AS owner,
    role.rolsuper OR (owner.oid IS NOT NULL AND pg_has_role(owner.oid, 'USAGE')) AS is_owner,
    EXISTS (SELECT FROM pg_roles WHERE rolname = %(group)s AND pg_has_role(oid, 'USAGE')) AS is_member,
    array_remove(ARRAY[
        CASE WHEN role.rolcreaterole THEN 'CREATEROLE' END,
        CASE WHEN role.rolcreatedb THEN 'CREATEDB' END,
        CASE WHEN role.rolbypassrls THEN 'BYPASSRLS' END,
        CASE WHEN has_schema_privilege(%(schema)s, 'CREATE') THEN 'CREATE in schema ' || %(schema)s END,
        CASE WHEN has_database_privilege(current_database(), 'CREATE') THEN 'CREATE in the database' END
    ], NULL) AS powers
FROM pg_roles AS role
LEFT JOIN pg_namespace AS space ON space.nspname = %(schema)s
LEFT JOIN pg_class AS tasks ON tasks.relnamespace = space.oid AND tasks.relname = 'tasks'
LEFT JOIN pg_roles AS owner ON owner.oid = tasks.relowner
WHERE role.rolname = current_user
