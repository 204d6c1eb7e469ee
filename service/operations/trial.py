"""What `tasks-service check` finds out by trying: each statement of the service is run in a transaction that is rolled
back, in a session like the service's.
"""

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import pq

from service.database import Statement, StatementError
from service.operations.finding import Finding, Level
from service.operations.migrate.session import ENCODING, first_line, session_facts
from service.operations.sql import query
from service.settings import Settings

TEXT = "Größe ✓"  # comes back as it is only where both sides speak UTF-8
# A value for each parameter of a statement; what is not listed is NULL.
TRIED: dict[str, object] = {
    "user_id": "tasks-service check",
    "task_id": 1,
    "newest": 1,
    "rows": 1,
    "title": TEXT,
    "description": TEXT,
    "completed": True,
    "sets_description": True,
    "key": "check",
    "fingerprint": b"check",
    "tasks": b'[{"title": "check", "description": null, "completed": false}]',
}

# Settings of a role, a database or the server that change what the service promises: which values do, and how.
HARMFUL: dict[str, tuple[Level, frozenset[str], str]] = {
    "default_transaction_read_only": ("error", frozenset({"on"}), "every write fails"),
    "fsync": ("warning", frozenset({"off"}), "a crash of the server can lose everything"),
    "full_page_writes": ("warning", frozenset({"off"}), "a crash of the server can damage the data"),
    "synchronous_commit": ("warning", frozenset({"off"}), "a crash can lose writes that were acknowledged"),
    "session_replication_role": ("warning", frozenset({"replica", "local"}), "foreign keys are not checked"),
    "standard_conforming_strings": ("warning", frozenset({"off"}), "a backslash in a literal means something else"),
    "default_transaction_isolation": (
        "warning",
        frozenset({"repeatable read", "serializable"}),
        "conflicting writes fail and are retried",
    ),
    "row_security": ("warning", frozenset({"off"}), "a statement on a table with row security fails"),
}
# Limits in ms: the service has its own, and a shorter one of the role's ends a statement or a connection before it.
LIMITS = ("statement_timeout", "lock_timeout", "transaction_timeout", "idle_session_timeout")


def findings(url: str, settings: Settings, *, lacking: list[str], distributed: bool) -> Iterator[Finding]:
    """What the session says, and each statement that fails. A few task IDs are used up."""
    try:
        from service.monitoring.expired_records import EXPIRED_RECORDS
        from service.operations.prune import CITUS, PRUNE, PRUNE_CITUS
        from service.tasks.queries import STATEMENTS
    except StatementError as error:
        yield Finding("error", f"statements: {error}")
        return
    tried = [*STATEMENTS, PRUNE_CITUS if distributed else PRUNE, CITUS, EXPIRED_RECORDS]
    with psycopg.connect(
        url, autocommit=True, client_encoding=ENCODING, application_name="tasks-service check"
    ) as like:
        like.prepare_threshold = None
        errors = False
        schema = session_facts(like)[0] or "public"
        for finding in _settings(like, settings):
            errors = errors or finding.level == "error"
            yield finding
        with like.transaction(force_rollback=True):
            for statement in tried:
                try:
                    with like.transaction(force_rollback=True):
                        _try(like, statement, schema)
                except psycopg.Error as error:
                    errors = True
                    if lacking and error.sqlstate == "42501":
                        continue
                    yield Finding(
                        "error",
                        f"statement {statement.name} fails: {first_line(error)} (SQLSTATE {error.sqlstate})",
                    )
    if not errors:
        yield Finding("ok", f"statements: all {len(tried)} run, in a transaction that is rolled back")


def _try(connection: psycopg.Connection[Any], statement: Statement[Any], schema: str) -> None:
    """Raises psycopg.Error."""
    values = statement.encode(tuple(TRIED.get(name) for name in statement.parameters))
    result = connection.pgconn.exec_params(statement.text(schema=schema), values)
    if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
        raise psycopg.errors.error_from_result(result)


def _settings(connection: psycopg.Connection[Any], settings: Settings) -> Iterator[Finding]:
    """What the role, the database or the server sets that changes what the service promises."""
    names = [*HARMFUL, *LIMITS]
    role, database = (
        connection.execute(query("quoted", ""), {"name": name}).fetchall()[0][0]
        for name in (connection.info.user, connection.info.dbname)
    )
    for name, value, unit, source in connection.execute(query("settings", ""), {"names": names}).fetchall():
        where = {"database": "the database", "user": "the role", "database user": "the role in this database"}
        said = f"{name} is {value}{unit or ''}, set by {where.get(source, source)}"
        mend = {
            "database": f"ALTER DATABASE {database} RESET {name}",
            "user": f"ALTER ROLE {role} RESET {name}",
            "database user": f"ALTER ROLE {role} IN DATABASE {database} RESET {name}",
        }.get(source)
        if name in HARMFUL:
            level, values, does = HARMFUL[name]
            if value in values and not (settings.embedded and name in ("fsync", "full_page_writes")):
                yield Finding(level, f"setting: {said}: {does}", mend)
        elif 0 < int(value) < (60_000 if name.startswith("idle") else settings.statement_timeout_ms):
            does = "idle connections end and are made again" if name.startswith("idle") else "it ends statements early"
            yield Finding("warning", f"setting: {said}: {does}", mend)
