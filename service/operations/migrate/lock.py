"""The lock that lets one migrator run at a time, and that shows which process holds it.

The lock is a PostgreSQL advisory lock, held by the very session that runs the statements: as long as that session can
change anything it has the lock, and when it is gone, killed or cut off, so is the lock. yoyo's row in `yoyo_lock` keeps
plain yoyo out and says who the holder is; a row without the advisory lock is a dead migrator's.
"""

import getpass
import os
import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import msgspec
import psycopg

from service.operations.migrate.errors import MigrationError
from service.operations.migrate.session import Session

KEY = int.from_bytes(b"tasksmig")

# The lock is polled. A statement that waited for it would hold a snapshot, and CREATE INDEX CONCURRENTLY waits for all
# older snapshots: the waiting and the working migrator would wait for each other.
POLL_S = 0.25


class Holder(msgspec.Struct, frozen=True):
    """The holder of the lock. `alive` is None if that cannot be known: plain yoyo leaves only its row."""

    who: str
    since: datetime | None
    alive: bool | None


def look(session: Session) -> Holder | None:
    """The holder of the lock, dead or alive. Changes nothing."""
    row = session.fetch_one("lock_row") if _has_row(session) else None
    other = session.fetch_one("lock_session", key=KEY)
    since = row[1].replace(tzinfo=UTC) if row else None
    if other:
        who = f"{row[2] if row and row[2] else other[2]}, session {other[0]}"
        return Holder(who, since or other[1], alive=True)
    if row is None:
        return None
    if row[2]:
        return Holder(row[2], since, alive=False)
    return Holder(f"yoyo, process {row[0]} on some host", since, alive=None)


@contextmanager
def held(session: Session, deadline: float, say: Callable[[str], None]) -> Generator[Callable[[], None]]:
    """Has the lock within. Waits for a living holder until `deadline` (time.monotonic), takes over from a dead one.

    Gives a function that writes yoyo's row: to be called before anything is changed, and not before it is certain that
    something will be. Through a pooler the lock lasts for a transaction, so everything within becomes one.
    """
    if session.pooled:
        with session.connection.transaction():
            _acquire(session, "try_lock_for_transaction", deadline, say)
            yield lambda: _delete_row(session)
        return
    _acquire(session, "try_lock", deadline, say)
    try:
        yield lambda: _write_row(session)
    finally:
        # Where that fails, the session is about to end: then the lock is free, and the row a dead migrator's.
        with suppress(psycopg.Error):
            _delete_row(session)
            session.execute("unlock", key=KEY)


def free(session: Session) -> None:
    """Removes the row that a dead holder left."""
    _delete_row(session)


def _has_row(session: Session) -> bool:
    return session.fetch_one("relation", name="yoyo_lock", schema=session.schema) is not None


def _write_row(session: Session) -> None:
    if not _has_row(session):
        session.execute("create_lock_table")
    session.execute("add_lock_holder")
    session.execute("write_lock_row", pid=os.getpid(), holder=whoami())


def _delete_row(session: Session) -> None:
    if _has_row(session):
        session.execute("delete_lock_row")


def _acquire(session: Session, take: str, deadline: float, say: Callable[[str], None]) -> None:
    waiting_for = None
    while True:
        locked = bool(session.fetch_one(take, key=KEY)[0])
        holder = look(session)
        if locked:
            if holder is None:
                return
            if holder.alive is False:
                say(f"taking over the lock of {holder.who}, which is dead")
                return
            session.execute("unlock", key=KEY)
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
