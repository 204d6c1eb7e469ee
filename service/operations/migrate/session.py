"""The session of an operator's command: how it resolves names, its encoding, its settings, and whether it goes through
a pooler.

Its search path is pg_catalog alone, and the service's tables are named with their schema. Otherwise the functions and
operators of any role that may create objects in that schema could run as the owner: an exact match of argument types
beats pg_catalog's own form, whatever the order of the search path.
"""

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.database.connector import OWN_SEARCH_PATH
from service.operations.migrate import files
from service.operations.migrate.errors import MigrationError, Unreachable
from service.operations.sql import query

CONNECT_TIMEOUT_S = 10
ENCODING = "UTF8"
# How a session resolves names and writes what the catalog holds, whatever the role, the database or PGTZ set. pg_temp
# is searched first unless it is named. `check` compares constraints and defaults as PostgreSQL writes them.
READS = (
    ("search_path", "pg_catalog, pg_temp"),
    ("TimeZone", "'UTC'"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("quote_all_identifiers", "off"),
)

# What each migration starts from, whatever the role or the database sets. A migration that waits for a lock has others
# wait behind it, so it gives up; building an index may take as long as it takes.
SETTINGS = {
    "lock_timeout": "501ms",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "default_transaction_read_only": "off",
    "standard_conforming_strings": "on",
    "client_min_messages": "notice",
    # A host that vanished is noticed within a minute, and with it its lock is free.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


class Session:
    """A connection in autocommit mode. `schema`: where the service's tables are, or will be; `pooled`: statements
    outside a transaction may each run in another session.
    """

    def __init__(self, connection: psycopg.Connection[Any], *, schema: str, pooled: bool) -> None:
        self.connection = connection
        self.schema = schema
        self.pooled = pooled

    def execute(self, name: str, /, **parameters: object) -> psycopg.Cursor[Any]:
        """Runs sql/operations/`name`.sql. Raises psycopg.Error."""
        if self.pooled:
            # The next transaction may be another session's, so each sets its own search path.
            with self.connection.transaction():
                self.connection.execute(_setting("SET LOCAL"))
                return self.connection.execute(query(name, self.schema), parameters)
        return self.connection.execute(query(name, self.schema), parameters)

    def fetch_all(self, name: str, /, **parameters: object) -> list[Any]:
        return self.execute(name, **parameters).fetchall()

    def fetch_one(self, name: str, /, **parameters: object) -> Any:
        """The first row, None where there is none."""
        return self.execute(name, **parameters).fetchone()

    def quoted(self, name: str) -> str:
        """The name as a statement has it, in quotes where it needs them."""
        return str(self.fetch_one("quoted", name=name)[0])

    def apply_settings(self, settings: Mapping[str, str]) -> None:
        """For the transaction where a pooler is in between, else for the session."""
        self.execute("set_settings", names=list(settings), values=list(settings.values()), local=self.pooled)

    def reset(self) -> None:
        """Undoes what a migration set for its session."""
        self.connection.execute("RESET ALL")
        self.connection.execute(_setting("SET LOCAL" if self.pooled else "SET"))


@contextmanager
def connect(
    url: str,
    name: str = "tasks-service migrate",
    on_notice: Callable[[psycopg.errors.Diagnostic], None] | None = None,
    *,
    needs_schema: bool = True,
) -> Generator[Session]:
    """Raises Unreachable where the database cannot be reached, MigrationError for a URL that makes no sense and for a
    database that cannot hold the service's tables; with `needs_schema`, also where the search path leads to no schema.
    """
    try:
        options = conninfo_to_dict(url).get("options") or os.environ.get("PGOPTIONS") or ""
    except psycopg.Error:  # its message would quote the URL, and the password in it
        raise MigrationError("The database's URL is not one that libpq can read") from None
    try:
        options = " ".join([str(options), *(f"-c {setting}={value}" for setting, value in SETTINGS.items())]).strip()
        # A role, a database or PGCLIENTENCODING may set another encoding, and text would be stored garbled.
        arguments = {"application_name": name, "connect_timeout": CONNECT_TIMEOUT_S, "client_encoding": ENCODING}
        try:
            connection = psycopg.connect(make_conninfo(url, options=options, **arguments), autocommit=True)
        except psycopg.OperationalError as error:
            if "startup parameter" not in str(error):
                raise
            connection = psycopg.connect(make_conninfo(url, **arguments), autocommit=True)
    except psycopg.Error as error:
        raise Unreachable(f"The database cannot be reached: {first_line(error)}") from error
    with connection:
        connection.prepare_threshold = None  # PgBouncer before 1.21 has no prepared statements
        if on_notice is not None:
            connection.add_notice_handler(on_notice)
        try:
            session = _session(connection, needs_schema=needs_schema)
        except psycopg.Error as error:  # a privilege, or a timeout of a millisecond that the role carries
            raise MigrationError(f"The database refused: {first_line(error)} (SQLSTATE {error.sqlstate})") from error
        yield session


def session_facts(connection: psycopg.Connection[Any]) -> tuple[Any, ...]:
    """The row of sql/operations/session_facts.sql, the one query before the search path is set. Where that leads to no
    schema the query runs again with the role's own: through a pooler, another client may have left one that is empty,
    as pg_dump does.
    """
    row = connection.execute(query("session_facts", "")).fetchone()
    if row is not None and row[1] is None:
        with connection.transaction():
            connection.execute(OWN_SEARCH_PATH)
            row = connection.execute(query("session_facts", "")).fetchone()
    assert row is not None
    return row


def first_line(error: psycopg.Error) -> str:
    """What PostgreSQL or libpq said, without its context and hints."""
    return (error.diag.message_primary or str(error).strip() or type(error).__name__).splitlines()[0]


def _session(connection: psycopg.Connection[Any], *, needs_schema: bool) -> Session:
    pooled = _is_pooled(connection)
    _, schema, recorded_in, encoding, *_ = session_facts(connection)
    if encoding != ENCODING:
        raise MigrationError(
            f"The database's encoding is {encoding}, and the service needs {ENCODING}: create a database with "
            f"ENCODING '{ENCODING}' and move the data with pg_dump"
        )
    if not pooled:
        connection.execute(_setting("SET"))
    session = Session(connection, schema=recorded_in or schema or "", pooled=pooled)
    if recorded_in not in (None, schema) and not _records_ours(session):
        session.schema = schema or ""  # another application's yoyo
    if needs_schema and not session.schema:
        role, database = session.quoted(connection.info.user), session.quoted(connection.info.dbname)
        raise MigrationError(
            f"The search path of role {role} names no schema that it may use: grant it USAGE of one, or create one; "
            f"then ALTER ROLE {role} IN DATABASE {database} SET search_path = its name"
        )
    return session


def _setting(how: str) -> bytes:
    return "; ".join(f"{how} {name} = {value}" for name, value in READS).encode()


def _records_ours(session: Session) -> bool:
    try:
        return bool(session.fetch_one("records_migrations", ids=files.ids())[0])
    except psycopg.errors.InsufficientPrivilege:  # what comes next says so
        return True


def _is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """A pooler in transaction mode refuses or drops a setting given at start-up, since its sessions are already there.

    That says more than the process id of the handshake, which Neon's proxy replaces on its direct endpoint, too.
    """
    row = connection.execute("SHOW lock_timeout").fetchone()
    return row is None or row[0] != SETTINGS["lock_timeout"]
