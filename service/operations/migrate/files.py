"""The files under migrations/: NNNN.what-it-does.sql, each with its NNNN.what-it-does.rollback.sql."""

import hashlib
import re
from functools import cache
from pathlib import Path

import msgspec
import sqlparse

from service.operations.migrate import yoyo_format
from service.operations.migrate.errors import MigrationError
from service.paths import root

ROLLBACK = ".rollback.sql"

_TEMPLATE = """\
-- {what}: what it does and why, for who runs it on a live database.
-- Deploy: pre.
{directives}
SET lock_timeout = '500ms';
"""


class Migration(msgspec.Struct, frozen=True):
    """One migration. `rollback` is None where there is no such file; `checksum` is of the SQL without its comments."""

    id: str
    transactional: bool
    statements: tuple[str, ...]
    rollback: tuple[str, ...] | None
    checksum: str

    @property
    def number(self) -> str:
        return self.id.split(".")[0]


def folder() -> Path:
    return root() / "migrations"


def read(where: Path | None = None) -> tuple[Migration, ...]:
    """Every migration in the order of its number. Raises MigrationError where the files do not fit each other."""
    where = where or folder()
    paths = sorted(path for path in where.glob("*.sql") if not path.name.endswith(ROLLBACK))
    if not paths:
        raise MigrationError(f"There are no migrations in {where}")
    found: list[Migration] = []
    for path in paths:
        directives, statements = yoyo_format.split(path)
        for name in directives.get("depends", "").split():
            if name not in {earlier.id for earlier in found}:
                raise MigrationError(f"{path.name} depends on {name}, which does not come before it")
        back = path.with_name(path.stem + ROLLBACK)
        found.append(
            Migration(
                id=path.stem,
                transactional=directives.get("transactional", "true").lower() != "false",
                statements=_sql(statements),
                rollback=_sql(yoyo_format.split(back)[1]) if back.exists() else None,
                checksum=checksum(statements),
            )
        )
    return tuple(found)


def ids() -> list[str]:
    """The ids of every migration that this code knows, in order."""
    return [migration.id for migration in read()]


def find(migrations: tuple[Migration, ...], name: str) -> int:
    """The place of the migration with that id or number. Raises MigrationError where there is none."""
    for place, migration in enumerate(migrations):
        if name == migration.id or name.zfill(4) == migration.number:
            return place
    raise MigrationError(f"No migration is called {name}: see `migrate status`")


def checksum(statements: list[str]) -> str:
    """Stays the same when a comment or the layout changes."""
    return hashlib.sha256("\n".join(map(_bare, statements)).encode()).hexdigest()


def new(name: str, where: Path | None = None) -> tuple[Path, Path]:
    """Writes the two files of the next number and returns their paths. `name` becomes words-with-hyphens."""
    where = where or folder()
    slug = "-".join(re.findall(r"[a-z0-9]+", name.lower()))
    if not slug:
        raise MigrationError(f"{name!r} has no letter or digit to name a file with")
    last = read(where)[-1]
    path = where / f"{int(last.number) + 1:04}.{slug}.sql"
    back = path.with_name(path.stem + ROLLBACK)
    what = slug.replace("-", " ").capitalize()
    directives = f"-- depends: {last.id}\n"
    try:
        with path.open("x") as up, back.open("x") as down:
            up.write(_TEMPLATE.format(what=what, directives=directives))
            down.write(
                _TEMPLATE.format(what=f"Rolls back {path.stem.split('.')[0]}", directives="").replace(
                    "-- Deploy: pre.\n", ""
                )
            )
    except OSError as error:
        raise MigrationError(f"{error.filename} cannot be written: {error.strerror}") from error
    return path, back


def _sql(statements: list[str]) -> tuple[str, ...]:
    """Without what is only a comment, which PostgreSQL would take for an empty query."""
    return tuple(text for text in statements if _bare(text).strip(" ;"))


@cache
def _bare(statement: str) -> str:
    """Without comments and layout. sqlparse takes milliseconds for it."""
    return " ".join(sqlparse.format(statement, strip_comments=True).split())
