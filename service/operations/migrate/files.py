"""The files of a folder of migrations: NNNN.what-it-does.sql, each with its NNNN.what-it-does.rollback.sql."""

import hashlib
import re
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path

import msgspec
import sqlparse

from service.operations.migrate import yoyo_format
from service.operations.migrate.errors import MigrationError
from service.operations.migrate.statements import does_something
from service.paths import root

ROLLBACK = ".rollback.sql"
SNAPSHOT = "schema.txt"

_TEMPLATE = """\
-- {what}: what it does and why, for an operator who runs it on a live database.
-- Deploy: pre.
-- depends: {depends}

SET lock_timeout = '500ms';
"""
_TEMPLATE_ROLLBACK = """\
-- Rolls back {number}: the data lost.

SET lock_timeout = '500ms';
"""
_PLACEHOLDERS = ("what it does and why", ": the data lost.")

_folder: Path | None = None


class Migration(msgspec.Struct, frozen=True):
    """One migration. `rollback` is None where there is no such file. `checksum` is of the SQL without its comments;
    `replaces` are those of earlier forms of the file that made the same schema.
    """

    id: str
    path: Path
    depends: tuple[str, ...]
    transactional: bool
    statements: tuple[str, ...]
    checksum: str
    replaces: tuple[str, ...] = ()
    rollback: tuple[str, ...] | None = None
    rollback_transactional: bool = True

    @property
    def number(self) -> str:
        return self.id.split(".")[0]

    @property
    def rollback_path(self) -> Path:
        return self.path.with_name(self.path.stem + ROLLBACK)

    @property
    def loss(self) -> str:
        """What its rollback loses, as the file's first comment says it."""
        prose = _prose(self.rollback_path) if self.rollback is not None else ""
        return prose.partition(": ")[2].partition(". ")[0].rstrip(".")

    @property
    def is_filled_in(self) -> bool:
        return does_something(self.statements) and _PLACEHOLDERS[0] not in _prose(self.path)

    @property
    def unfilled_line(self) -> int:
        """The line that is still the template's, or behind which the SQL is to stand."""
        lines = self.path.read_text("utf-8").splitlines()
        return next((number for number, line in enumerate(lines, 1) if _PLACEHOLDERS[0] in line), len(lines))


def use(where: Path) -> None:
    """Reads the migrations in `where` from now on (MIGRATIONS_DIR)."""
    global _folder
    _folder = where


def folder() -> Path:
    """The project's own folder, or the one that was set."""
    return _folder or root() / "migrations"


def read(where: Path | None = None) -> tuple[Migration, ...]:
    """Every migration in the order of its number. Raises MigrationError where the files do not fit each other."""
    found: list[Migration] = []
    for path in _paths(where or folder()):
        migration = _read(path)
        for name in migration.depends:
            if name not in {earlier.id for earlier in found}:
                raise MigrationError(f"{path.name} depends on {name}, which does not come before it")
        found.append(migration)
    return tuple(found)


def _paths(where: Path) -> list[Path]:
    paths = sorted(path for path in where.glob("*.sql") if not path.name.endswith(ROLLBACK))
    if not paths:
        raise MigrationError(f"There are no migrations in {where}")
    return paths


def _read(path: Path) -> Migration:
    directives, statements = _split(path)
    back = path.with_name(path.stem + ROLLBACK)
    back_directives, back_statements = _split(back) if back.exists() else ({}, None)
    transactional = _is_transactional(directives, default=True)
    return Migration(
        id=path.stem,
        path=path,
        depends=tuple(directives.get("depends", "").split()),
        transactional=transactional,
        statements=_sql(statements),
        checksum=checksum(statements),
        replaces=tuple(directives.get("replaces", "").split()),
        rollback=None if back_statements is None else _sql(back_statements),
        rollback_transactional=_is_transactional(back_directives, default=transactional),
    )


def _split(path: Path) -> tuple[dict[str, str], list[str]]:
    try:
        return yoyo_format.split(path)
    except (OSError, UnicodeDecodeError) as error:
        raise MigrationError(f"{path} cannot be read: {error}") from None


def _is_transactional(directives: dict[str, str], *, default: bool) -> bool:
    return directives.get("transactional", str(default)).lower() != "false"


def ids() -> list[str]:
    """The ids of every migration that there is a file for, in order. Reads no file."""
    return [path.stem for path in _paths(folder())]


def find(migrations: tuple[Migration, ...], name: str) -> int:
    """The place of the migration with that id or number. Raises MigrationError where there is none, or two."""
    places = [place for place, found in enumerate(migrations) if name == found.id or name.zfill(4) == found.number]
    if not places:
        raise MigrationError(f"No migration is called {name}: see `migrate status`")
    if len(places) > 1:
        raise MigrationError(f"Two migrations have the number {name}: give the whole name, as in `migrate status`")
    return places[0]


def problems(migrations: tuple[Migration, ...]) -> Iterator[tuple[Migration, str]]:
    """What is wrong with the files as a whole, a sentence each."""
    for place, migration in enumerate(migrations):
        same = [other.id for other in migrations[:place] if other.number == migration.number]
        if same:
            yield migration, f"has the same number as {same[0]}: rename the later one, in its `depends` lines too"
        if migration.rollback is None:
            yield migration, f"has no rollback: write {migration.rollback_path.name}"
        if not migration.is_filled_in:
            yield migration, f"is not filled in: {_to_fill_in(migration)}"
        elif migration.rollback is not None and not does_something(migration.rollback):
            yield migration, f"has a rollback that does nothing: write the SQL of {migration.rollback_path.name}"
    ends = heads(migrations)
    if len(ends) > 1:
        yield (
            migrations[-1],
            f"leaves {len(ends)} heads, which nothing depends on: let the newest depend on the others of "
            f"{', '.join(ends)}",
        )


def _to_fill_in(migration: Migration) -> str:
    line = f"line {migration.unfilled_line} of {migration.path.name}"
    if _PLACEHOLDERS[0] in _prose(migration.path):
        return f"{line} is still the template's; write what it does and why, and its SQL"
    return f"there is no SQL up to {line}; write it"


def heads(migrations: tuple[Migration, ...]) -> list[str]:
    """The migrations that no other depends on; more than one after two branches were merged."""
    needed = {name for migration in migrations for name in migration.depends}
    return [migration.id for migration in migrations if migration.id not in needed]


def digest(migrations: tuple[Migration, ...]) -> str:
    """Changes with the SQL of any of them; one that is not filled in does not count."""
    lines = [f"{migration.id} {migration.checksum}" for migration in migrations if migration.is_filled_in]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def checksum(statements: list[str]) -> str:
    """Stays the same when a comment or the layout changes."""
    return hashlib.sha256("\n".join(map(_bare, statements)).encode()).hexdigest()


def new(name: str, where: Path | None = None) -> tuple[Path, Path]:
    """Writes the two files of the next number and returns their paths. `name` becomes words-with-hyphens; the new
    migration depends on every one that none depends on yet.
    """
    where = where or folder()
    slug = "-".join(re.findall(r"[a-z0-9]+", name.lower()))
    if not slug:
        raise MigrationError(f"{name!r} has no letter or digit to name a file with")
    known = read(where)
    unfilled = next((migration for migration in known if not migration.is_filled_in), None)
    if unfilled is not None:
        raise MigrationError(f"{unfilled.id} is not filled in yet: write its SQL, or delete its two files")
    number = f"{int(known[-1].number) + 1:04}"
    path = where / f"{number}.{slug}.sql"
    back = path.with_name(path.stem + ROLLBACK)
    what = slug.replace("-", " ").capitalize()
    try:
        with path.open("x") as up, back.open("x") as down:
            up.write(_TEMPLATE.format(what=what, depends=" ".join(heads(known))))
            down.write(_TEMPLATE_ROLLBACK.format(number=number))
    except OSError as error:
        raise MigrationError(f"{error.filename} cannot be written: {error.strerror}") from error
    return path, back


def _prose(path: Path) -> str:
    """The comment at the top of a file, without its directives."""
    header = takewhile(lambda line: line.startswith("--"), path.read_text("utf-8").splitlines())
    directive = re.compile(r"-- (Deploy|depends|transactional|replaces):")
    return " ".join(line[2:].strip() for line in header if not directive.match(line))


def _sql(statements: list[str]) -> tuple[str, ...]:
    """Without what is only a comment, which PostgreSQL would take for an empty query."""
    return tuple(text for text in statements if _bare(text).strip(" ;"))


@cache
def _bare(statement: str) -> str:
    """Without comments and layout. sqlparse takes milliseconds for it."""
    return " ".join(sqlparse.format(statement, strip_comments=True).split())
