-- Whether a role may use the schema, and whether it has what is granted to the service's role; no row without that role.
SELECT
    pg_catalog.has_schema_privilege(role.oid, space.oid, 'USAGE') AS may_use,
    EXISTS (
        SELECT FROM pg_catalog.pg_roles AS granted
        WHERE granted.rolname = %(group)s AND pg_catalog.pg_has_role(role.oid, granted.oid, 'USAGE')
    ) AS is_member
FROM pg_catalog.pg_roles AS role CROSS JOIN pg_catalog.pg_namespace AS space
WHERE role.rolname = %(role)s AND space.nspname = %(schema)s
