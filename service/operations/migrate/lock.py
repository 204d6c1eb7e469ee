"""One migrator at a time, and the truth about who it is.

The lock is a PostgreSQL advisory lock, held by the very session that runs the statements: as long as that session can
change anything it has the lock, and when it is gone, killed or cut off, so is the lock. Beside it stands yoyo's row in
`yoyo_lock`, which keeps plain yoyo out and says who it was; a row without the advisory lock is a dead migrator's.
"""

import getpass
import os
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, LiteralString

import msgspec
import psycopg

from service.operations.migrate import history
from service.operations.migrate.errors import MigrationError
from service.operations.migrate.session import Session

KEY = int.from_bytes(b"tasksmig")

# Asked for again and again instead of waited for: a statement that waits holds a snapshot, CREATE INDEX CONCURRENTLY
# waits for every snapshot older than itself, and so the waiting and the working migrator would wait for each other.
POLL_S = 0.25

_ROW = "SELECT pid, ctime, to_jsonb(l) ->> 'holder' FROM yoyo_lock AS l"
_SESSION = """
SELECT a.pid, a.backend_start, a.application_name
FROM pg_locks AS l INNER JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = %s AND l.objsubid = 1
"""
_TABLE = """
CREATE TABLE IF NOT EXISTS yoyo_lock (locked int DEFAULT 1, ctime timestamp, pid int NOT NULL, PRIMARY KEY (locked))
"""


class Holder(msgspec.Struct, frozen=True):
    """Who has the lock. `alive` is None where that cannot be known: plain yoyo leaves nothing but its row."""

    who: str
    since: datetime | None
    alive: bool | None


def look(connection: psycopg.Connection[Any]) -> Holder | None:
    """Who has the lock, or left it behind; changes nothing."""
    row = connection.execute(_ROW).fetchone() if history.exists(connection, "yoyo_lock") else None
    session = connection.execute(_SESSION, (KEY,)).fetchone()
    since = row[1].replace(tzinfo=UTC) if row else None
    if session:
        who = f"{row[2] if row and row[2] else session[2]}, session {session[0]}"
        return Holder(who, since or session[1], alive=True)
    if row is None:
        return None
    if row[2]:
        return Holder(row[2], since, alive=False)
    return Holder(f"yoyo, process {row[0]} on some host", since, alive=None)


@contextmanager
def held(session: Session, deadline: float, say: Callable[[str], None]) -> Generator[None]:
    """Has the lock within. Waits for a living holder until `deadline` (time.monotonic), takes over from a dead one.

    Through a pooler the lock lasts for a transaction, so everything within becomes one.
    """
    connection = session.connection
    if session.pooled:
        with connection.transaction():
            _acquire(connection, "SELECT pg_try_advisory_xact_lock(%s)", deadline, say)
            if history.exists(connection, "yoyo_lock"):
                connection.execute("DELETE FROM yoyo_lock")
            yield
        return
    _acquire(connection, "SELECT pg_try_advisory_lock(%s)", deadline, say)
    try:
        connection.execute(_TABLE)
        connection.execute("ALTER TABLE yoyo_lock ADD COLUMN IF NOT EXISTS holder text")
        connection.execute(
            "INSERT INTO yoyo_lock (ctime, pid, holder) VALUES (now() AT TIME ZONE 'UTC', %s, %s) "
            "ON CONFLICT (locked) DO UPDATE SET ctime = excluded.ctime, pid = excluded.pid, holder = excluded.holder",
            (os.getpid(), whoami()),
        )
        yield
    finally:
        # Where that fails, the session is about to end: then the lock is free, and the row a dead migrator's.
        with suppress(psycopg.Error):
            connection.execute("DELETE FROM yoyo_lock")
            connection.execute("SELECT pg_advisory_unlock(%s)", (KEY,))


def _acquire(
    connection: psycopg.Connection[Any], take: LiteralString, deadline: float, say: Callable[[str], None]
) -> None:
    waiting_for = None
    while True:
        row = connection.execute(take, (KEY,)).fetchone()
        locked = bool(row and row[0])
        holder = look(connection)
        if locked:
            if holder is None:
                return
            if holder.alive is False:
                say(f"taking over the lock of {holder.who}, which is dead")
                return
            connection.execute("SELECT pg_advisory_unlock(%s)", (KEY,))
        if time.monotonic() > deadline:
            raise MigrationError(
                f"Another migration has the lock: {describe(holder)}; wait longer with --wait, or see "
                "`migrate break-lock`"
            )
        if holder is not None and holder.who != waiting_for:
            waiting_for = holder.who
            say(f"waiting for {describe(holder)}")
        time.sleep(POLL_S)


def describe(holder: Holder | None) -> str:
    if holder is None:
        return "somebody, this moment"
    return holder.who + (f", since {holder.since:%Y-%m-%d %H:%M:%S} UTC" if holder.since else "")


def whoami() -> str:
    return f"{username()} on {socket.gethostname()}, process {os.getpid()}"


def username() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user that has no name
        return str(os.getuid())
