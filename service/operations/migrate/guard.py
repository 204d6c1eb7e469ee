"""Checks before the first statement of a migration command: objects of others are not adopted, dropped, or run as the
owner, and no long lock is taken without confirmation.

Reads the files and the catalog, and changes nothing. Each failed check raises a MigrationError.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from psycopg import sql

from service.operations.migrate import history, statements
from service.operations.migrate.errors import MigrationError
from service.operations.migrate.files import Migration, problems
from service.operations.migrate.history import History
from service.operations.migrate.risks import Risk, risks_of
from service.operations.migrate.session import Session
from service.operations.migrate.statements import SHARED, Thing

Consent = Callable[[str], bool]  # asked with what would be done; whether to go on
ALLOW = "--allow-shared-schema"


class Danger(NamedTuple):
    """A statement that would hold others up for long."""

    migration: Migration
    risk: Risk
    rows: int

    def __str__(self) -> str:
        rows = f"about {self.rows} rows" if self.rows else "rows"
        return f"{self.migration.id} {self.risk.what} ({self.risk.table} has {rows}); better: {self.risk.better}"


def before_apply(
    session: Session,
    plan: Sequence[Migration],
    known: Sequence[Migration],
    past: History,
    *,
    consent: Consent,
    allow_shared_schema: bool,
    say: Callable[[str], None],
) -> None:
    """All checks before `plan` is applied."""
    _check_pooler(session, plan, direction="apply")
    if not allow_shared_schema:
        _check_schema(session)
    for migration, problem in problems(tuple(known)):
        if migration in plan:
            if not migration.is_filled_in:
                raise MigrationError(f"{migration.id} {problem}; nothing was applied")
            say(f"warning: {migration.id} {problem}")
    _check_foreign(session, plan, known, past)
    _check_drops(session, plan, known, past, direction="apply")
    for danger in dangers(session, plan):
        if not consent(str(danger)):
            raise MigrationError(f"{danger}; nothing was applied: give --yes to do it all the same")


def before_rollback(
    session: Session,
    plan: Sequence[Migration],
    known: Sequence[Migration],
    past: History,
    *,
    allow_shared_schema: bool,
) -> None:
    """All checks before `plan` is rolled back."""
    _check_pooler(session, plan, direction="rollback")
    if not allow_shared_schema:
        _check_schema(session)
    _check_drops(session, plan, known, past, direction="rollback")


def dangers(session: Session, plan: Sequence[Migration]) -> list[Danger]:
    """The statements that would hold others up for long, on tables with rows."""
    risks = [(migration, risk) for migration in plan for text in migration.statements for risk in risks_of(text)]
    found: list[Danger] = []
    for migration, risk in risks:
        schema = risk.schema or session.schema
        for name, estimate in session.fetch_all("filled_tables", schema=schema, names=[risk.table]):
            table = sql.SQL("SELECT FROM {} LIMIT 1").format(sql.Identifier(schema, name))
            if session.connection.execute(table).rowcount:
                found.append(Danger(migration, risk, estimate))
    return found


def others_who_may_create(session: Session, owner: str) -> list[str]:
    """The roles, other than the owner, that may create objects in the schema."""
    return [name for (name,) in session.fetch_all("others_may_create", schema=session.schema, owner=owner)]


def existing(session: Session, things: Sequence[Thing]) -> list[str | None]:
    """For each thing, what the database has of that name, in words."""
    rows = session.fetch_all(
        "existing_objects",
        kinds=[thing.kind for thing in things],
        names=[thing.name for thing in things],
        tables=[thing.table for thing in things],
        schemas=[thing.schema or session.schema for thing in things],
    )
    found = dict(rows)
    return [found.get(place) for place in range(1, len(things) + 1)]


def made_by(migrations: Iterable[Migration]) -> set[Thing]:
    """What is there after these migrations, by their statements."""
    found: set[Thing] = set()
    for migration in migrations:
        for text in migration.statements:
            found |= {thing._replace(schema=None) for thing in statements.made(text)}
            for table, old, new in statements.columns_renamed(text):
                found.discard(Thing("column", old, table))
                found.add(Thing("column", new, table))
            for gone in statements.dropped(text):
                found = {thing for thing in found if not _is_part(thing, gone)}
    return found


def _is_part(thing: Thing, gone: Thing) -> bool:
    same = (thing.kind, thing.name) == (gone.kind, gone.name) and gone.table in (None, thing.table)
    of_it = gone.kind == "table" and (thing.table == gone.name or thing.name.startswith(f"{gone.name}_"))
    # A key's index goes with its constraint.
    index = gone.kind == "constraint" and thing == Thing("index", gone.name, gone.table)
    return same or index or (of_it and thing.kind in ("column", "constraint", "index", "trigger", "policy", "sequence"))


def _check_pooler(session: Session, plan: Sequence[Migration], direction: str) -> None:
    """Fails through a transaction-mode pooler, unless everything fits into one transaction."""
    if not session.pooled:
        return
    alone = next(
        (
            migration.id
            for migration in plan
            if not (migration.transactional if direction == "apply" else migration.rollback_transactional)
        ),
        None,
    )
    reason = f"{alone} runs outside a transaction" if alone else None
    if reason is None and not history.is_recorded(session):
        reason = "the first migration makes the bookkeeping"
    if reason:
        raise MigrationError(
            f"This connection goes through a pooler and {reason}: set MIGRATION_DATABASE_URL to the direct endpoint "
            "(Neon: the host without -pooler)"
        )


def _check_schema(session: Session) -> None:
    """Fails where others may create objects in the schema."""
    user = session.connection.info.user
    if others := others_who_may_create(session, user):
        raise MigrationError(
            f"Schema {session.schema} is open to others than its owner ({', '.join(others)}), whose functions and "
            f"operators a migration could run as {user}: REVOKE CREATE ON SCHEMA {session.quoted(session.schema)} FROM "
            f"{', '.join(others)}, use a schema of the service alone, or give {ALLOW}"
        )


def _check_foreign(session: Session, plan: Sequence[Migration], known: Sequence[Migration], past: History) -> None:
    """Fails where an object that a pending migration would make exists and no migration made it."""
    ours = made_by(migration for migration in known if migration.id in past.applied or migration.id in past.begun)
    wanted: list[tuple[Migration, Thing]] = []
    for migration in plan:
        if migration.id in past.begun:
            continue  # what it made before it was cut short is its own
        for text in migration.statements:
            wanted += [
                (migration, thing)
                for thing in statements.made(text)
                if thing.kind not in SHARED and thing._replace(schema=None) not in ours
            ]
            ours |= {thing._replace(schema=None) for thing in statements.made(text)}
    there = [
        (migration, thing, what)
        for (migration, thing), what in zip(wanted, existing(session, [thing for _, thing in wanted]), strict=True)
        if what and not _is_leftover(session, migration, thing)
    ]
    if there:
        migration, thing, what = there[0]
        tables = {found.name for _, found, _ in there if found.kind == "table"}  # whose columns say no more
        others = ", ".join(f"{other} of {of.id}" for of, other, _ in there[1:] if other.table not in tables)
        more = f"; so it is with {others}" if others else ""
        raise MigrationError(
            f"{migration.id} would make {thing}, but schema {thing.schema or session.schema} has {what} of that name "
            f"that no migration made{more}; nothing was applied. Give the service its own schema, as "
            "migrations/README.md says, or rename what is there"
        )


def _is_leftover(session: Session, migration: Migration, thing: Thing) -> bool:
    """An invalid index of the right table: a build outside a transaction that was cut short. It is built anew."""
    if thing.kind != "index" or migration.transactional:
        return False
    return session.fetch_one("index", schema=thing.schema or session.schema, name=thing.name) == (thing.table, False)


def _check_drops(
    session: Session, plan: Sequence[Migration], known: Sequence[Migration], past: History, direction: str
) -> None:
    """Fails where a statement would drop an object that no migration made."""
    recorded = [migration for migration in known if migration.id in past.applied or migration.id in past.begun]
    ours = made_by(recorded)
    tables = {thing.name for thing in ours if thing.kind == "table"}
    for migration in plan:
        if direction == "apply" and migration.id not in past.begun:
            ours |= made_by([migration])
            tables |= {thing.name for thing in ours if thing.kind == "table"}
        for text in migration.statements if direction == "apply" else migration.rollback or ():
            for thing in statements.dropped(text):
                _check_drop(session, migration, thing, ours, tables)


def _check_drop(session: Session, migration: Migration, thing: Thing, ours: set[Thing], tables: set[str]) -> None:
    schema = thing.schema or session.schema
    if thing.kind == "table":
        live = [name for (name,) in session.fetch_all("columns_of", schema=schema, name=thing.name)]
        columns = {found.name for found in ours if found.kind == "column" and found.table == thing.name}
        strange = [name for name in live if name not in columns]
        if live and (thing.name not in tables or strange):
            why = (
                f"has columns that no migration made ({', '.join(strange)})"
                if thing.name in tables
                else ("was made by no migration")
            )
            raise MigrationError(
                f"{migration.id} would drop table {thing.name}, which {why}: nothing was changed; look at what is in "
                "it, and drop it by hand if nobody needs it"
            )
    elif thing.kind == "index":
        row = session.fetch_one("index", schema=schema, name=thing.name)
        if row and row[0] not in tables:
            raise MigrationError(
                f"{migration.id} would drop index {thing.name}, which is one of table {row[0]} that no migration made: "
                "nothing was changed"
            )
    elif (
        thing.kind not in SHARED
        and (thing.kind, thing.name) not in {(found.kind, found.name) for found in ours}
        and any(existing(session, [thing]))
    ):
        raise MigrationError(f"{migration.id} would drop {thing}, which no migration made: nothing was changed")
