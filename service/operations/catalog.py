"""What a database's schema is, as lines that can be compared: the live one, and the one that the migrations make.

`migrations/schema.txt` holds the latter, since making it means migrating a database; a test keeps it true. Knows the
catalogue. Must not know what the tables are for, and changes nothing.
"""

from collections.abc import Iterable
from typing import Any

import psycopg

from service.paths import root

ROLE = "tasks_service"  # migrations/0005

# A line for each fact. Names are bare: which schema the tables live in is the operator's.
_FACTS = """
WITH ours AS (
    SELECT oid, relname, relrowsecurity FROM pg_class
    WHERE relnamespace = current_schema::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
        AND relname NOT LIKE '%yoyo%'
)

SELECT format('table %s', relname) || CASE WHEN relrowsecurity THEN ' with row security' ELSE '' END AS fact FROM ours
UNION ALL
SELECT format('column %s.%s %s', relname, attname, format_type(atttypid, atttypmod))
    || CASE WHEN attnotnull THEN ' not null' ELSE '' END
    || coalesce(' default ' || pg_get_expr(adbin, adrelid), '')
    || CASE attidentity WHEN 'a' THEN ' always identity' WHEN 'd' THEN ' by default identity' ELSE '' END
FROM ours
INNER JOIN pg_attribute ON attrelid = ours.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
UNION ALL
SELECT format('constraint %s.%s %s', relname, conname, pg_get_constraintdef(pg_constraint.oid))
FROM ours INNER JOIN pg_constraint ON conrelid = ours.oid AND contype IN ('c', 'f', 'p', 'u', 'x') AND conparentid = 0
UNION ALL
SELECT format('index %s.%s ', relname, indexrelid::regclass::text)
    || regexp_replace(pg_get_indexdef(indexrelid), '^.* USING', 'using')
    || CASE WHEN indisunique THEN ' unique' ELSE '' END || CASE WHEN indisvalid THEN '' ELSE ' invalid' END
FROM ours INNER JOIN pg_index ON indrelid = ours.oid
UNION ALL
SELECT format('trigger %s.%s %s', relname, tgname, pg_get_triggerdef(pg_trigger.oid))
FROM ours INNER JOIN pg_trigger ON tgrelid = ours.oid AND NOT tgisinternal
UNION ALL
SELECT format('policy %s.%s', relname, polname) FROM ours INNER JOIN pg_policy ON polrelid = ours.oid
UNION ALL
SELECT format('extension %s', extname) FROM pg_extension WHERE extname <> 'plpgsql'
"""

# What a role may do with each table, column and sequence of the schema, itself or as a member of another role. What an
# extension brings along is open to everybody by its own choice.
_PRIVILEGES = """
WITH relation AS (
    SELECT oid, relname, relkind FROM pg_class
    WHERE relnamespace = current_schema::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
        AND NOT relispartition AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
)

SELECT format('%%s on %%s', privilege, relname)
FROM relation, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
WHERE relkind <> 'S' AND has_table_privilege(%(role)s, oid, privilege)
UNION ALL
SELECT format('%%s of %%s.%%s', privilege, relname, attname)
FROM relation INNER JOIN pg_attribute ON attrelid = oid AND attnum > 0 AND NOT attisdropped,
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS privilege
WHERE relkind <> 'S' AND has_column_privilege(%(role)s, oid, attnum, privilege)
    AND NOT has_table_privilege(%(role)s, oid, privilege)
UNION ALL
SELECT format('%%s on %%s', privilege, relname)
FROM relation, unnest(ARRAY['USAGE', 'SELECT', 'UPDATE']) AS privilege
WHERE relkind = 'S' AND has_sequence_privilege(%(role)s, oid, privilege)
"""


def facts(connection: psycopg.Connection[Any]) -> list[str]:
    """The live schema, sorted; characters that would not print are escaped."""
    return sorted(row[0].encode("unicode_escape").decode() for row in connection.execute(_FACTS).fetchall())


def privileges(connection: psycopg.Connection[Any], role: str) -> set[str]:
    """What the role may do in the current schema: `SELECT of tasks.title`, `DELETE on tasks`, …"""
    return {row[0] for row in connection.execute(_PRIVILEGES, {"role": role}).fetchall()}


def listing(connection: psycopg.Connection[Any]) -> list[str]:
    """The lines of schema.txt, from a database that is migrated all the way."""
    return [*facts(connection), *sorted(f"grant {line}" for line in privileges(connection, ROLE))]


def expected() -> tuple[list[str], set[str]]:
    """The facts that the migrations make, and the privileges that they grant to the service's role."""
    lines = (root() / "migrations" / "schema.txt").read_text().splitlines()
    grants = {line.removeprefix("grant ") for line in lines if line.startswith("grant ")}
    return [line for line in lines if not line.startswith(("grant ", "#"))], grants


def drift(live: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """How the live schema differs, a sentence each. Tables and extensions beside the service's do not matter."""
    live, wanted = set(live), set(wanted)
    found: list[str] = []
    tables = {_name(line) for line in wanted if line.startswith("table ")}
    there = {_key(line): line for line in live - wanted if _name(line) in tables}
    for line in sorted(wanted - live):
        other = there.pop(_key(line), None)
        found.append(f"{_key(line)} is `{_rest(other)}`, should be `{_rest(line)}`" if other else f"missing: {line}")
    return found + [f"not made by a migration: {line}" for line in there.values()]


def missing(held: set[str], needed: set[str]) -> list[str]:
    """The privileges that are needed and not held; one on a table holds for each of its columns."""
    return sorted(
        grant
        for grant in needed - held
        if " of " not in grant or grant.replace(" of ", " on ").split(".")[0] not in held
    )


def _key(line: str) -> str:
    return " ".join(line.split(" ", 2)[:2])


def _rest(line: str) -> str:
    return line.removeprefix(_key(line)).strip()


def _name(line: str) -> str:
    return line.split(" ", 2)[1].split(".")[0]
