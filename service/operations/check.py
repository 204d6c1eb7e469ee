"""`tasks-service check`: whether the settings, the database, its schema and the role fit the service; changes nothing.

Knows everybody's needs of the database. Each finding is a line; a fault is what the service would stumble over.
"""

import statistics
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import click
import msgspec
import psycopg

from service.database import StatementError
from service.operations import catalog as schema
from service.operations import embedded, migrate
from service.operations.migrate.session import Session, connect, first_line
from service.settings import Settings, SettingsError, load

OLDEST_VERSION = 15
ROUND_TRIPS = 7
COLOURS = {"ok": "green", "note": "yellow", "fault": "red"}

_ROLE = """
SELECT
    current_user,
    rolsuper OR coalesce(
        (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('tasks')), false
    ),
    ARRAY_REMOVE(ARRAY[
        CASE WHEN rolcreaterole THEN 'CREATEROLE' END,
        CASE WHEN rolcreatedb THEN 'CREATEDB' END,
        CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
        CASE WHEN has_schema_privilege(current_schema, 'CREATE') THEN 'CREATE in schema ' || current_schema END,
        CASE WHEN has_database_privilege(current_database(), 'CREATE') THEN 'CREATE in the database' END
    ], NULL)
FROM pg_roles WHERE rolname = current_user
"""


Level = Literal["ok", "note", "fault"]
Version = Literal["behind", "level", "ahead"]


class Finding(msgspec.Struct, frozen=True):
    level: Level
    what: str


def findings(settings: Settings, url: str) -> Iterator[Finding]:
    """Everything there is to say about the database at `url`, one after the other, as it is found out."""
    try:
        with connect(url, "tasks-service check") as session:
            yield from _server(session)
            version = yield from _version(session)
            if version != "behind":
                yield from _drift(session, "note" if version == "ahead" else "fault")
                yield from _statements(session)
                yield from _role(session, settings)
            if session.pooled:
                yield from _pooler(session, url, settings)
    except migrate.MigrationError as error:
        yield Finding("fault", str(error))
        return
    except psycopg.Error as error:
        asked = f"; is the role a member of {schema.ROLE}?" if error.sqlstate == "42501" else ""
        yield Finding("fault", f"the database refused: {first_line(error)} (SQLSTATE {error.sqlstate}){asked}")
        return
    if settings.migration_database_url is not None:
        yield from _migrations_url(settings.migration_database_url.reveal())


def _server(session: Session) -> Iterator[Finding]:
    connection = session.connection
    took: list[float] = []
    for _ in range(ROUND_TRIPS):
        begin = time.perf_counter()
        connection.execute("SELECT 1")
        took.append((time.perf_counter() - begin) * 1000)
    version = connection.info.server_version // 10_000
    level = "ok" if version >= OLDEST_VERSION else "fault"
    older = "" if version >= OLDEST_VERSION else f", older than {OLDEST_VERSION}, the oldest that is supported"
    pooled = ", through a pooler" if session.pooled else ""
    yield Finding(
        level, f"database: PostgreSQL {version}{older}{pooled}; a round trip takes {statistics.median(took):.1f} ms"
    )
    encoding = connection.execute("SHOW server_encoding").fetchone()
    if encoding != ("UTF8",):
        yield Finding("fault", f"the database's encoding is {(encoding or ('unknown',))[0]}, should be UTF8")


def _version(session: Session) -> Generator[Finding, None, Version]:
    """Compares the migrations; its result is how the schema stands to this code."""
    states = migrate.states_of(session.connection)
    for state in states:
        if state.state == "pending":
            yield Finding("fault", f"migration {state.id} is pending: run `tasks-service migrate apply`")
        elif state.state == "changed":
            yield Finding("fault", f"migration {state.id} was applied from a file with other SQL than the one here")
        elif state.state == "unknown":
            yield Finding(
                "note", f"migration {state.id} is applied but not known here: the schema is ahead of the code"
            )
    found = {state.state for state in states}
    if "pending" in found:
        return "behind"
    yield Finding("ok", f"migrations: all {len(states)} are applied, the last is {states[-1].id}")
    return "ahead" if "unknown" in found else "level"


def _drift(session: Session, level: Level) -> Iterator[Finding]:
    found = schema.drift(schema.facts(session.connection), schema.expected()[0])
    for line in found:
        yield Finding(level, f"schema: {line}")
    if not found:
        yield Finding("ok", "schema: as the migrations make it")


def _statements(session: Session) -> Iterator[Finding]:
    """Has PostgreSQL parse and plan each statement, under no name, so that nothing of it stays."""
    try:
        from service.operations.prune import PRUNE
        from service.tasks.queries import STATEMENTS
    except StatementError as error:
        yield Finding("fault", f"statements: {error}")
        return
    faults = 0
    for statement in [*STATEMENTS, PRUNE]:
        result = session.connection.pgconn.prepare(b"", statement.sql.encode())
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            faults += 1
            said = result.error_field(psycopg.pq.DiagnosticField.MESSAGE_PRIMARY) or b"unknown error"
            yield Finding("fault", f"statement {statement.name} does not prepare: {said.decode(errors='replace')}")
    if not faults:
        yield Finding("ok", f"statements: all {len(STATEMENTS) + 1} prepare")


def _role(session: Session, settings: Settings) -> Iterator[Finding]:
    row = session.connection.execute(_ROLE).fetchone()
    assert row is not None
    name, is_owner, powers = row
    if is_owner:
        if not settings.embedded:
            yield Finding(
                "note",
                f"role: {name} owns the tables and may do anything with them; the service needs only a member of "
                f"{schema.ROLE}",
            )
        return
    held, needed = schema.privileges(session.connection, name), schema.expected()[1]
    lacking, too_much = schema.missing(held, needed), [*powers, *sorted(held - needed)]
    for privilege in lacking:
        yield Finding("fault", f"role: {name} lacks {privilege}")
    for privilege in too_much:
        yield Finding("note", f"role: {name} has {privilege}, which no statement needs")
    if not lacking and not too_much:
        yield Finding("ok", f"role: {name} has what the statements need and nothing else")


def _pooler(session: Session, url: str, settings: Settings) -> Iterator[Finding]:
    """Whether the pooler keeps track of prepared statements, which it shows by giving them names of its own."""
    if not settings.db_prepare:
        yield Finding("ok", "pooler: no prepared statements are used (DB_PREPARE=off)")
        return
    with session.connection.transaction():  # in which a pooler stays with one session
        name = f"tasks_check_{abs(session.connection.info.backend_pid)}"  # a pooler makes ids up, negative ones too
        session.connection.pgconn.prepare(name.encode(), b"SELECT 1")
        names = "SELECT name FROM pg_prepared_statements WHERE name = %s"
        kept = session.connection.execute(names, (name,)).fetchone()
        if kept:
            session.connection.execute(f"DEALLOCATE {name}".encode())
    if kept is None:
        yield Finding("ok", "pooler: keeps track of prepared statements")
    elif _shares_sessions(session, url):
        yield Finding("fault", "pooler: knows no prepared statements and shares sessions: set DB_PREPARE=off")
    else:
        yield Finding("note", "pooler: knows no prepared statements; unless each client has a session, DB_PREPARE=off")


def _shares_sessions(session: Session, url: str) -> bool:
    """Whether another client was seen to get the session that this one had a moment ago."""
    with connect(url, "tasks-service check") as other:
        for _ in range(20):
            mine = session.connection.execute("SELECT pg_backend_pid()").fetchone()
            with other.connection.transaction():
                if other.connection.execute("SELECT pg_backend_pid()").fetchone() == mine:
                    return True
    return False


def _migrations_url(url: str) -> Iterator[Finding]:
    try:
        with connect(url, "tasks-service check") as session:
            if session.pooled:
                yield Finding("note", "MIGRATION_DATABASE_URL goes through a pooler: give it the direct endpoint")
            else:
                yield Finding("ok", "migrations: their database is reached directly")
    except migrate.MigrationError as error:
        yield Finding("fault", f"MIGRATION_DATABASE_URL: {error}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool) -> None:
    """Says what of the settings, the database, its schema and its role does not fit; changes nothing."""
    found: list[Finding] = []
    for finding in _everything():
        found.append(finding)
        if not as_json:
            click.echo(f"{click.style(f'{finding.level:5}', fg=COLOURS[finding.level])}  {finding.what}")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    if any(finding.level == "fault" for finding in found):
        raise click.exceptions.Exit(1)


def _everything() -> Iterator[Finding]:
    try:
        settings = load()
    except SettingsError as error:
        yield from (Finding("fault", f"settings: {problem}") for problem in error.problems)
        return
    yield Finding("ok", "settings: can be used")
    with ExitStack() as stack:
        if settings.database_url is not None:
            url = settings.database_url.reveal()
        elif not embedded.exists(Path(settings.tasks_data_dir)):
            yield Finding("note", f"database: {settings.tasks_data_dir} holds none yet; `tasks-service serve` makes it")
            return
        else:
            try:
                url = stack.enter_context(embedded.using(Path(settings.tasks_data_dir)))
            except embedded.EmbeddedError as error:
                yield Finding("fault", str(error))
                return
        yield from findings(settings, url)
