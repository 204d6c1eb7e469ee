"""The one session in which migrations run: its settings, and whether a pooler stands in between."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.operations.migrate.errors import MigrationError, Unreachable

CONNECT_TIMEOUT_S = 10

# What each migration starts from, whatever the role or the database sets. A migration that waits for a lock has others
# wait behind it, so it gives up; building an index may take as long as it takes.
SETTINGS = {
    "lock_timeout": "501ms",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # A host that vanished is noticed within a minute, and with it its lock is free.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


class Session:
    """A connection in autocommit mode. `pooled`: statements outside a transaction may each run in another session."""

    def __init__(self, connection: psycopg.Connection[Any], *, pooled: bool) -> None:
        self.connection = connection
        self.pooled = pooled


@contextmanager
def connect(url: str, name: str = "tasks-service migrate") -> Generator[Session]:
    """Raises Unreachable where the database cannot be reached, MigrationError for a URL that makes no sense."""
    try:
        options = conninfo_to_dict(url).get("options") or ""
    except psycopg.Error:  # its message would quote the URL, and the password in it
        raise MigrationError("The database's URL is not one that libpq can read") from None
    try:
        options = " ".join([str(options), *(f"-c {setting}={value}" for setting, value in SETTINGS.items())]).strip()
        arguments = {"application_name": name, "connect_timeout": CONNECT_TIMEOUT_S}
        try:
            connection = psycopg.connect(make_conninfo(url, options=options, **arguments), autocommit=True)
        except psycopg.OperationalError as error:
            if "startup parameter" not in str(error):
                raise
            connection = psycopg.connect(make_conninfo(url, **arguments), autocommit=True)
    except psycopg.Error as error:
        raise Unreachable(f"The database cannot be reached: {first_line(error)}") from error
    with connection:
        connection.prepare_threshold = None  # older PgBouncers know no prepared statements
        yield Session(connection, pooled=_is_pooled(connection))


def first_line(error: psycopg.Error) -> str:
    """What PostgreSQL or libpq said, without its context and hints."""
    return (error.diag.message_primary or str(error).strip() or type(error).__name__).splitlines()[0]


def _is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """A pooler in transaction mode refuses or drops a setting given at start-up, since its sessions are already there.

    That says more than the process id of the handshake, which Neon's proxy replaces on its direct endpoint, too.
    """
    row = connection.execute("SHOW lock_timeout").fetchone()
    return row is None or row[0] != SETTINGS["lock_timeout"]
