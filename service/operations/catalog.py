"""What a database's catalog holds, as lines that can be compared: the live one, and the one that the migrations make.

`schema.txt`, in the folder of the migrations, holds the latter, because making it means migrating a database:
`tasks-service migrate lint` writes it anew. Reads the catalog and changes nothing. Must not import tasks.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from service.operations.migrate import files
from service.operations.migrate.files import Migration
from service.operations.migrate.session import Session
from service.operations.migrate.statements import made

ROLE = "tasks_service"  # migrations/0005

_HEADER = """\
# What the migrations make, a fact a line; `tasks-service check` compares a database with it, and
# `tasks-service migrate lint` writes it anew.
"""
_DIGEST = "# digest of the migrations: "
_NAME = r'"(?:[^"]|"")*"|[^".]+'
_COLUMN = re.compile(rf"({_NAME})\.({_NAME})")


class Snapshot(NamedTuple):
    """`facts` that the migrations make, the privileges (`grants`) of the service's role, and of which migrations."""

    facts: list[str]
    grants: set[str]
    digest: str | None


class Difference(NamedTuple):
    """One way in which a live schema differs. `mend` is the statement that ends it, where one is known."""

    level: Literal["warning", "error"]
    what: str
    mend: str | None = None


def facts(session: Session) -> list[str]:
    """The live schema, sorted; characters that would not print are escaped."""
    rows = session.fetch_all("facts", schema=session.schema)
    return sorted(row[0].encode("unicode_escape").decode() for row in rows)


def privileges(session: Session, role: str) -> set[str]:
    """What the role may do in the schema: `SELECT of tasks.title`, `DELETE on tasks`, …"""
    return {row[0] for row in session.fetch_all("privileges", schema=session.schema, role=role)}


def listing(session: Session) -> str:
    """The text of schema.txt, from a database that is migrated all the way."""
    grants = sorted(f"grant {line}" for line in privileges(session, ROLE))
    lines = [_DIGEST + files.digest(files.read()), *facts(session), *grants]
    return _HEADER + "".join(line + "\n" for line in lines)


def snapshot() -> Snapshot | None:
    """What schema.txt holds; None where there is no such file."""
    path = files.folder() / files.SNAPSHOT
    if not path.exists():
        return None
    lines = path.read_text("utf-8").splitlines()
    digest = next((line.removeprefix(_DIGEST) for line in lines if line.startswith(_DIGEST)), None)
    grants = {line.removeprefix("grant ") for line in lines if line.startswith("grant ")}
    return Snapshot([line for line in lines if not line.startswith(("grant ", "#"))], grants, digest)


def is_stale(found: Snapshot | None, migrations: tuple[Migration, ...]) -> bool:
    """Whether the snapshot was made from other migrations than these."""
    return found is None or found.digest != files.digest(migrations)


def drift(live: Iterable[str], wanted: Iterable[str], migrations: Sequence[Migration] = ()) -> list[Difference]:
    """How the live schema differs. Tables and extensions that are none of the service's do not matter; an index or a
    nullable column that somebody added is only a warning.
    """
    live, wanted = set(live), set(wanted)
    found: list[Difference] = []
    tables = {_table(line) for line in wanted if line.startswith("table ")}
    there = {_key(line): line for line in live - wanted if _table(line) in tables}
    lacking = {_table(line) for line in wanted - live if line.startswith("table ") and _key(line) not in there}
    for line in sorted(wanted - live):
        other = there.pop(_key(line), None)
        if other is not None:
            what = f"{_key(line)} is `{_rest(other)}`, should be `{_rest(line)}`"
            found.append(Difference("error", what, _mend(line, other, migrations)))
        elif line.startswith("table ") or _table(line) not in lacking:
            found.append(Difference("error", f"missing: {line}", _mend(line, None, migrations)))
    return found + [_extra(line) for line in there.values()]


def missing(held: set[str], needed: set[str]) -> list[str]:
    """The privileges that are needed and not held; one on a table holds for each of its columns."""
    return sorted(
        grant
        for grant in needed - held
        if " of " not in grant or grant.replace(" of ", " on ").split(".")[0] not in held
    )


def grant(privilege: str, role: str = ROLE) -> str:
    """The statement that gives the role what `privileges` calls so."""
    return f"GRANT {_privilege(privilege)} TO {role}"


def revoke(privilege: str, role: str, kept: Iterable[str] = ()) -> str:
    """What takes it from the role, in one line for psql. A privilege on a table takes those on its columns with it, so
    what of those is in `kept` is granted again, before anybody else can see that it was gone.
    """
    taken = f"REVOKE {_privilege(privilege)} FROM {role}"
    what, on, table = privilege.split(" ", 2)
    columns = [
        name.removeprefix(f"{what} of {table}.") for name in sorted(kept) if name.startswith(f"{what} of {table}.")
    ]
    if on == "of" or not columns:
        return taken
    return f"BEGIN; {taken}; GRANT {what} ({', '.join(columns)}) ON {table} TO {role}; COMMIT"


def _privilege(privilege: str) -> str:
    what, of, name = privilege.split(" ", 2)
    if of == "on":
        return f"{what} ON {name}"  # also of a sequence
    column = _COLUMN.fullmatch(name)
    assert column is not None, name
    return f"{what} ({column[2]}) ON {column[1]}"


def _extra(line: str) -> Difference:
    harmless = line.startswith("index ") and not line.endswith(" unique")
    harmless = harmless or (line.startswith("column ") and (" not null" not in line or " default " in line))
    return Difference("warning" if harmless else "error", f"not made by a migration: {line}")


def _mend(line: str, other: str | None, migrations: Sequence[Migration]) -> str | None:
    """The statement that makes `line` true, where `other` is there in its place."""
    kind, name, rest = (*line.split(" ", 2), "")[:3]
    table, _, part = name.partition(".")
    if kind == "table":
        return (
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
            if other
            else _statement_that_makes(kind, table, migrations)
        )
    if kind == "column":
        return _mend_column(table, part, rest, other and _rest(other))
    if kind == "constraint":
        drop = f"ALTER TABLE {table} DROP CONSTRAINT {part}; " if other else ""
        if rest.startswith(("CHECK", "FOREIGN")):
            return (
                f"{drop}ALTER TABLE {table} ADD CONSTRAINT {part} {rest} NOT VALID; "
                f"ALTER TABLE {table} VALIDATE CONSTRAINT {part}"
            )
        return f"{drop}ALTER TABLE {table} ADD CONSTRAINT {part} {rest}"
    if kind == "index":
        if other and f"constraint {name} " in line:
            return None
        drop = f"DROP INDEX CONCURRENTLY {part}; " if other else ""
        unique = "UNIQUE " if rest.endswith(" unique") else ""
        using = rest.removesuffix(" unique").replace("using", "USING", 1)
        return f"{drop}CREATE {unique}INDEX CONCURRENTLY {part} ON {table} {using}"
    return None


def _mend_column(table: str, column: str, wanted: str, live: str | None) -> str:
    if live is None:
        return f"ALTER TABLE {table} ADD COLUMN {column} {wanted}"
    alter = f"ALTER TABLE {table} ALTER COLUMN {column}"
    steps: list[str] = []
    wanted_type, wanted_default = _split_column(wanted)
    live_type, live_default = _split_column(live)
    if wanted_type != live_type:
        steps.append(f"{alter} TYPE {wanted_type}")
    if wanted_default != live_default:
        steps.append(f"{alter} SET DEFAULT {wanted_default}" if wanted_default else f"{alter} DROP DEFAULT")
    if (" not null" in wanted) != (" not null" in live):
        steps.append(f"{alter} {'SET' if ' not null' in wanted else 'DROP'} NOT NULL")
    return "; ".join(steps)


def _split_column(text: str) -> tuple[str, str]:
    """Type and default of a column's fact."""
    text, _, default = text.partition(" default ")
    return text.removesuffix(" always identity").removesuffix(" not null"), default


def _statement_that_makes(kind: str, name: str, migrations: Sequence[Migration]) -> str | None:
    for migration in migrations:
        for text in migration.statements:
            if any((thing.kind, thing.name) == (kind, name) for thing in made(text)):
                return f"see {migration.path.name}"
    return None


def _key(line: str) -> str:
    return " ".join(line.split(" ", 2)[:2])


def _rest(line: str) -> str:
    return line.removeprefix(_key(line)).strip()


def _table(line: str) -> str:
    return line.split(" ", 2)[1].split(".")[0]
