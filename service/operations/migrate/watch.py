"""Reports the progress of a long statement, from a second session: the one that runs it can run nothing else."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import psycopg

from service.operations.migrate.errors import MigrationError
from service.operations.migrate.session import Session, connect

EVERY_S = 5.0
QUERY_LETTERS = 200

Say = Callable[[str], None]


class Watch:
    """While it is entered, says every few seconds how far `pid`'s statement is. A short one costs nothing: the second
    session is opened when the first line is due.
    """

    def __init__(self, url: str, pid: int, name: str, say: Say) -> None:
        self._url, self._pid, self._name, self._say = url, pid, name, say
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        begin = time.monotonic()
        if self._over.wait(EVERY_S):
            return
        with suppress(MigrationError, psycopg.Error), connect(self._url, "tasks-service migrate progress") as session:
            while True:
                row = session.fetch_one("index_progress", pid=self._pid)
                self._say(f"{self._name}: {time.monotonic() - begin:.0f} s{_progress(row) if row else ''}")
                if self._over.wait(EVERY_S):
                    return


def describe_session(row: Sequence[Any]) -> str:
    """A session that others wait for: pid, user, application, state, start of its transaction, query."""
    pid, user, application, state, since, query = row
    text = " ".join(str(query or "").split())
    text = text[:QUERY_LETTERS] + "…" if len(text) > QUERY_LETTERS else text
    age = f" for {(datetime.now(UTC) - since).total_seconds():.0f} s" if since else ""
    of = f"{user or 'a background process'}{f', {application}' if application else ''}"
    return f"session {pid} ({of}; {state or 'state unknown'}, in a transaction{age}): {text or 'query unknown'}"


def holders(session: Session, names: Sequence[str]) -> str | None:
    """The sessions that hold locks on these relations, None where there is none any more."""
    rows = session.fetch_all("lock_holders", schema=session.schema, names=list(names))
    return "; ".join(describe_session(row) for row in rows) or None


def _progress(row: Sequence[Any]) -> str:
    phase, blocks_done, blocks_total, rows_done, rows_total, *blocker = row
    parts = [phase]
    if blocks_total:
        parts.append(f"{blocks_done} of {blocks_total} blocks")
    if rows_total:
        parts.append(f"{rows_done} of {rows_total} rows")
    if blocker[0]:
        parts.append(f"waits for {describe_session(blocker)}")
    return ", " + ", ".join(parts)
