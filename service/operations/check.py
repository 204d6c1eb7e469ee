"""`tasks-service check`: whether the settings, the database, its schema and the role fit the service; changes nothing.

Each finding is a line: an error is what the service would fail on.
"""

import statistics
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal

import click
import msgspec
import psycopg

from service.operations import catalog, embedded, migrate, pooler, trial
from service.operations.finding import Finding
from service.operations.in_use import naming, settings_of
from service.operations.migrate import distribute, files
from service.operations.migrate.guard import others_who_may_create
from service.operations.migrate.history import State
from service.operations.migrate.plan import FINISH
from service.operations.migrate.session import Session, connect, first_line
from service.settings import Settings, SettingsError, near_misses

OLDEST_VERSION = 15
ROUND_TRIPS = 7
LEVELS = {"ok": "green", "warning": "yellow", "error": "red"}
WIDTH = max(map(len, LEVELS))
PUBLIC = "public"  # every role, as GRANT and has_table_privilege() call it

Version = Literal["behind", "level", "ahead"]


def findings(settings: Settings, url: str) -> Iterator[Finding]:
    """Everything there is to say about the database at `url`, one after the other, as it is found out."""
    try:
        with naming("DATABASE_URL"), connect(url, "tasks-service check") as session:
            schema, role = session.schema, session.connection.info.user
            yield from _server(session)
            version = yield from _version(session, settings)
            if version != "behind":
                yield from _drift(session, version)
                distributed = yield from _distribution(session)
                lacking = yield from _role(session, settings, distribute.GRANTS if distributed else set())
                yield from trial.findings(url, settings, lacking=lacking, distributed=distributed)
            if session.pooled:
                yield from pooler.findings(session, url, settings)
    except migrate.MigrationError as error:
        yield Finding("error", str(error))
        return
    except psycopg.Error as error:
        asked = f"; is the role a member of {catalog.ROLE}?" if error.sqlstate == "42501" else ""
        yield Finding("error", f"the database refused: {first_line(error)} (SQLSTATE {error.sqlstate}){asked}")
        return
    if settings.migration_database_url is not None:
        yield from _migrations_url(settings.migration_database_url.reveal(), schema, role)


def _server(session: Session) -> Iterator[Finding]:
    connection = session.connection
    took: list[float] = []
    for _ in range(ROUND_TRIPS):
        begin = time.perf_counter()
        connection.execute("SELECT 1")
        took.append((time.perf_counter() - begin) * 1000)
    version = connection.info.server_version // 10_000
    level = "ok" if version >= OLDEST_VERSION else "error"
    older = "" if version >= OLDEST_VERSION else f", older than {OLDEST_VERSION}, the oldest that is supported"
    pooled = ", through a pooler" if session.pooled else ""
    schema = "" if session.schema == "public" else f"; schema {session.schema}"
    yield Finding(
        level,
        f"database: PostgreSQL {version}{older}{pooled}{schema}; a round trip takes {statistics.median(took):.1f} ms",
    )


def _version(session: Session, settings: Settings) -> Generator[Finding, None, Version]:
    """Compares the migrations; its result is how the schema stands to this code."""
    states = migrate.states_of(session)
    begun: dict[str, str] = {}  # to the service's own role, what is incomplete looks pending or applied
    if settings.migration_database_url is not None:
        with suppress(migrate.MigrationError):  # it is looked at below
            begun = migrate.begun(settings.migration_database_url.reveal())
    for state in states:
        if state.id in begun and state.state != "incomplete":
            yield _incomplete(state)
        elif state.state == "pending":
            yield Finding("error", f"migration {state.id} is pending", "tasks-service migrate apply")
        elif state.state == "incomplete":
            yield _incomplete(state)
        elif state.state == "changed":
            yield Finding("error", f"migration {state.id} was applied from a file with other SQL than the one here")
        elif state.state == "unknown":
            yield Finding(
                "warning", f"migration {state.id} is applied and has no file here: the schema is ahead of the code"
            )
    found = {"incomplete" if state.id in begun else state.state for state in states}
    if "pending" in found:
        return "behind"
    if "incomplete" not in found:
        yield Finding("ok", f"migrations: all {len(states)} are applied, the last is {states[-1].id}")
    return "ahead" if "unknown" in found else "level"


def _incomplete(state: State) -> Finding:
    direction = "apply" if state.applied_at is None else "rollback"
    what = "its SQL" if direction == "apply" else "its rollback"
    return Finding("error", f"migration {state.id} is incomplete: {what} was begun and not finished", FINISH[direction])


def _drift(session: Session, version: Version) -> Iterator[Finding]:
    migrations = files.read()
    snapshot = catalog.snapshot()
    if snapshot is None:
        yield Finding(
            "warning", f"schema: {files.folder()} has no {files.SNAPSHOT} to compare with", "tasks-service migrate lint"
        )
        return
    stale = catalog.is_stale(snapshot, migrations)
    if stale:
        yield Finding(
            "warning",
            f"schema: {files.SNAPSHOT} was made from other migrations than those here",
            "tasks-service migrate lint",
        )
    found = catalog.drift(catalog.facts(session), snapshot.facts, migrations)
    for difference in found:
        level = "warning" if stale or version == "ahead" else difference.level
        yield Finding(level, f"schema: {difference.what}", difference.mend)
    if not found and not stale:
        yield Finding("ok", "schema: as the migrations make it")


def _distribution(session: Session) -> Generator[Finding, None, bool]:
    """How Citus holds the tables, where it is installed; its result is whether it holds any."""
    if not distribute.is_installed(session):
        return False
    command = "tasks-service migrate distribute"
    found = distribute.placements(session)
    ours = {name for name in found if name in (distribute.USERS, *distribute.BY_USER)}
    for said in distribute.misplaced(found):
        yield Finding("error", f"citus: {said}", "SELECT undistribute_table('…'), then " + command)
    absent = distribute.missing(found)
    if not ours:
        yield Finding("warning", "citus: it is installed and holds none of the tables", command)
    elif absent:
        yield Finding("error", f"citus: it does not hold {', '.join(absent)}", command)
    elif not distribute.misplaced(found):
        yield Finding("ok", "citus: the tables are distributed by user and colocated")
    if distribute.USERS in found and not found[distribute.USERS].on_workers:
        yield Finding(
            "warning",
            "citus: every shard is on the coordinator",
            "SELECT citus_add_node('…', 5432) for each worker, then SELECT rebalance_table_shards()",
        )
    for name, value, _, _ in session.fetch_all("settings", names=["plan_cache_mode", "citus.recover_2pc_interval"]):
        if name == "plan_cache_mode" and value == "force_generic_plan":
            yield Finding(
                "error", "citus: plan_cache_mode is force_generic_plan, which breaks every statement with a CTE"
            )
        elif name == "citus.recover_2pc_interval" and ours and int(value) > 1000:
            yield Finding(
                "warning",
                f"citus: a create with a key that was cancelled can keep its locks for {int(value) / 1000:.0f} s",
                "ALTER SYSTEM SET citus.recover_2pc_interval = '1s'",
            )
    return bool(ours)


def _role(session: Session, settings: Settings, besides: set[str]) -> Generator[Finding, None, list[str]]:
    """What the role may do; its result is what it lacks. `besides`: what it needs more than the snapshot says."""
    name, owner, is_owner, is_member, powers = session.fetch_one("role", schema=session.schema, group=catalog.ROLE)
    for other in others_who_may_create(session, owner):
        yield Finding(
            "warning",
            f"schema {session.schema}: {other} may create objects in it, whose functions could run as the service",
            f"REVOKE CREATE ON SCHEMA {session.quoted(session.schema)} FROM {other}",
        )
    if is_owner:
        if not settings.embedded:
            yield Finding(
                "warning",
                f"role: {name} owns the tables and may do anything with them; the service needs only a member of "
                f"{catalog.ROLE}",
            )
        return []
    snapshot = catalog.snapshot()
    held, needed = catalog.privileges(session, name), (snapshot.grants if snapshot else set[str]()) | besides
    lacking = catalog.missing(held, needed)
    too_much = [*powers, *sorted(held - needed)]
    for privilege in lacking:
        yield Finding("error", f"role: {name} lacks {privilege}", catalog.grant(privilege))
    everybodys = catalog.privileges(session, PUBLIC) if too_much else set[str]()
    groups = catalog.privileges(session, catalog.ROLE) if too_much and is_member else set[str]()
    quoted = session.quoted(name)
    for privilege in too_much:
        through = PUBLIC if privilege in everybodys else catalog.ROLE if privilege in groups else quoted
        kept = needed if through == catalog.ROLE or (through == quoted and not is_member) else ()
        mend = catalog.revoke(privilege, through, kept) if privilege in held - needed else None
        yield Finding("warning", f"role: {name} has {privilege}, which no statement needs", mend)
    if not lacking and not too_much:
        yield Finding("ok", f"role: {name} has what the statements need and nothing else")
    return lacking


def _migrations_url(url: str, schema: str, role: str) -> Iterator[Finding]:
    try:
        with connect(url, "tasks-service check") as session:
            if session.schema != schema:
                yield _another_schema(session, schema, role)
            if session.pooled:
                yield Finding("warning", "MIGRATION_DATABASE_URL goes through a pooler: give it the direct endpoint")
            else:
                yield Finding("ok", "migrations: their database is reached directly")
    except migrate.MigrationError as error:
        yield Finding("error", f"MIGRATION_DATABASE_URL: {error}")


def _another_schema(session: Session, schema: str, role: str) -> Finding:
    """That `role` looks in another schema than the migrations' session, and what has it look there."""
    made = f"migrations: they make tables in schema {session.schema}"
    names = (role, session.connection.info.dbname, session.schema)
    quoted, database, here = (session.quoted(name) for name in names)
    asked = session.fetch_one("may_use", role=role, schema=session.schema, group=catalog.ROLE)
    if asked is not None and not asked[0]:
        what = f"USAGE ON SCHEMA {here} TO {catalog.ROLE}" if asked[1] else f"{catalog.ROLE} TO {quoted}"
        return Finding("error", f"{made}, which role {role} may not use", f"GRANT {what}")
    return Finding(
        "error",
        f"{made}, and the service looks in {schema}",
        f"ALTER ROLE {quoted} IN DATABASE {database} SET search_path = {here}",
    )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool) -> None:
    """Reports problems of the settings, the database, its schema and its role; changes nothing."""
    found: list[Finding] = []
    for finding in _everything():
        found.append(finding)
        if not as_json:
            mend = f"\n{'':{WIDTH}}  mend: {finding.mend}" if finding.mend else ""
            click.echo(f"{click.style(f'{finding.level:{WIDTH}}', fg=LEVELS[finding.level])}  {finding.what}{mend}")
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    if any(finding.level == "error" for finding in found):
        raise click.exceptions.Exit(1)


def _everything() -> Iterator[Finding]:
    yield from (Finding("warning", f"settings: {sentence}") for sentence in near_misses())
    try:
        settings = settings_of(serves=True)
    except SettingsError as error:
        yield from (Finding("error", f"settings: {problem}") for problem in error.problems)
        return
    yield Finding("ok", "settings: can be used")
    with ExitStack() as stack:
        if settings.database_url is not None:
            url = settings.database_url.reveal()
        elif not embedded.exists(Path(settings.tasks_data_dir)):
            yield Finding(
                "warning", f"database: {settings.tasks_data_dir} holds none yet; `tasks-service serve` makes it"
            )
            return
        else:
            try:
                url = stack.enter_context(embedded.using(Path(settings.tasks_data_dir)))
            except embedded.EmbeddedError as error:
                yield Finding("error", str(error))
                return
        yield from findings(settings, url)
