-- The roles (in quotes where a statement needs them), and PUBLIC, that may create objects in the schema and are neither its owner, nor `owner` (of the tables), nor
-- superusers. A group that cannot log in does not count where only such roles are members of it.
WITH trusted AS (
    SELECT role.oid
    FROM pg_catalog.pg_roles AS role
    CROSS JOIN (SELECT datdba FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AS database
    CROSS JOIN (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = %(schema)s) AS space
    WHERE role.rolsuper OR role.rolname = %(owner)s OR role.oid = space.nspowner
        OR (role.oid = database.datdba AND space.nspowner = 'pg_database_owner'::regrole)
),

granted AS (
    SELECT DISTINCT entry.grantee
    FROM pg_catalog.pg_namespace AS space
    CROSS JOIN pg_catalog.aclexplode(
        coalesce(space.nspacl, pg_catalog.acldefault('n', space.nspowner))
    ) AS entry
    WHERE space.nspname = %(schema)s AND entry.privilege_type = 'CREATE'
)

SELECT coalesce(pg_catalog.quote_ident(role.rolname), 'PUBLIC') AS name
FROM granted LEFT JOIN pg_catalog.pg_roles AS role ON role.oid = granted.grantee
WHERE NOT EXISTS (SELECT FROM trusted WHERE trusted.oid = granted.grantee)
    AND (
        role.oid IS NULL
        OR role.rolcanlogin
        OR NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members WHERE roleid = role.oid)
        OR EXISTS (
            SELECT FROM pg_catalog.pg_roles AS member
            WHERE member.rolcanlogin AND pg_catalog.pg_has_role(member.oid, role.oid, 'MEMBER')
                AND NOT EXISTS (SELECT FROM trusted WHERE trusted.oid = member.oid)
        )
    )
ORDER BY name
