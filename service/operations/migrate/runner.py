"""Runs one migration: its transaction, its record, its retries, and the words for its failure."""

import socket
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Literal

import psycopg
from psycopg import sql

from service.operations.migrate import guard, lock, statements, yoyo_format
from service.operations.migrate.errors import MigrationError
from service.operations.migrate.files import Migration
from service.operations.migrate.reader import tokens
from service.operations.migrate.session import SETTINGS, Session, first_line
from service.operations.migrate.watch import Watch, holders

RETRY_S = 1.0  # in which those who queued behind the lock are served
SAY_EVERY_S = 10.0  # that it still waits
# PostgreSQL's notice where IF NOT EXISTS passes over a table, a column or a schema, and over any other object.
EXISTS = {"42P07", "42701", "42P06"}
OTHER_EXISTS = "42710"

Progress = Callable[[Migration, float | None], None]  # the seconds it took, None as it begins
Say = Callable[[str], None]
Direction = Literal["apply", "rollback"]
BEGUN = {"apply": "applying", "rollback": "reverting"}


class _Foreign(Exception):
    """A statement with IF NOT EXISTS found what the migration would have made."""


class Runner:
    """Runs migrations one after the other, each with its record. Where one gives up waiting for a lock it is tried
    again until `deadline`: a short lock_timeout, so that requests do not queue behind it for long, and some patience.
    """

    def __init__(
        self, session: Session, url: str, direction: Direction, deadline: float, say: Say, progress: Progress
    ) -> None:
        self._session, self._url, self._direction = session, url, direction
        self._deadline, self._say, self._progress = deadline, say, progress
        self._silent_until = 0.0

    def __call__(self, migration: Migration, *, again: bool) -> None:
        """`again`: it was begun before, outside a transaction, and not finished."""
        self._progress(migration, None)
        begin = time.monotonic()
        while True:
            try:
                with Watch(self._url, self._session.connection.info.backend_pid, migration.id, self._say):
                    self._once(migration, again=again)
            except psycopg.errors.LockNotAvailable as error:
                self._wait(migration, error)
            except _Foreign as error:
                self._note_failure(migration)
                raise MigrationError(f"{migration.id} was not applied: {error}, and it did not make that") from None
            except psycopg.Error as error:
                raise self._failure(migration, error) from error
            else:
                self._progress(migration, time.monotonic() - begin)
                return

    def _wait(self, migration: Migration, error: psycopg.Error) -> None:
        names = sorted({token.name for text in self._texts(migration) for token in tokens(text)})
        who = None
        with suppress(psycopg.Error):
            who = holders(self._session, names)
        # Through a pooler, the transaction around keeps the locks of the migrations before.
        if self._session.pooled or time.monotonic() > self._deadline:
            self._note_failure(migration)
            raise MigrationError(
                f"{migration.id} gave up waiting for a lock that others hold: "
                + (f"{who}. End it with pg_terminate_backend, or" if who else "see pg_locks, or")
                + " try when there is less going on"
            ) from error
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + SAY_EVERY_S
            self._say(f"{migration.id} waits for a lock that others hold{f', {who}' if who else ''}; trying again")
        time.sleep(RETRY_S)

    def _failure(self, migration: Migration, error: psycopg.Error) -> MigrationError:
        """The error with PostgreSQL's detail, hint and place, and what is left to do."""
        parts = [f"{migration.id} failed: {first_line(error)} (SQLSTATE {error.sqlstate})"]
        parts += [
            f"{name}: {' '.join(text.split()).rstrip('.')}"
            for name, text in (("DETAIL", error.diag.message_detail), ("HINT", error.diag.message_hint))
            if text
        ]
        if place := self._place(migration, error):
            parts.append(place)
        parts.append(self._left(migration))
        return MigrationError("; ".join(parts))

    def _left(self, migration: Migration) -> str:
        if self._is_transactional(migration):
            self._note_failure(migration)
            return "nothing of it was applied" if self._direction == "apply" else "nothing of it was rolled back"
        indexes = [index for text in self._texts(migration) if (index := statements.index_of(text))]
        gone: list[str] = []
        for name, _, schema in indexes:
            schema = schema or self._session.schema
            try:
                row = self._session.fetch_one("index", schema=schema, name=name)
                if row is not None and not row[1]:
                    # Nobody else made it: that nothing of this name was there was looked at before.
                    _drop_index(self._session, schema, name)
                    gone.append(name)
            except psycopg.Error:
                return (
                    f'it may have left the invalid index "{name}" behind: DROP INDEX CONCURRENTLY {schema}.{name}, or '
                    f"run `migrate {self._direction}` again, which does so"
                )
        self._note_failure(migration)
        dropped = f'the invalid index "{gone[0]}" that it left was dropped; ' if gone else ""
        return f"{dropped}mend the cause and run `migrate {self._direction}` again"

    def _place(self, migration: Migration, error: psycopg.Error) -> str | None:
        """The line of the file that PostgreSQL points at, or that the statement begins in."""
        path = migration.path if self._direction == "apply" else migration.rollback_path
        text = path.read_text("utf-8")
        begin = text.find(self._statement) if self._statement else -1
        if begin < 0:
            return None
        at = begin + int(error.diag.statement_position or 1) - 1
        start = text.rfind("\n", 0, at) + 1 if error.diag.statement_position else begin
        line = text[start:].partition("\n")[0].strip().rstrip(";")
        return f"at line {text.count(chr(10), 0, at) + 1} of {path.name}: {line}"

    def _once(self, migration: Migration, *, again: bool) -> None:
        """In one transaction with its record or, where it runs outside of one, recorded before and after."""
        self._statement: str | None = None
        connection = self._session.connection
        if self._is_transactional(migration):
            with connection.transaction():
                self._execute(migration, again=False)
                self._record(migration)
            return
        self._note(migration, BEGUN[self._direction])
        self._execute(migration, again=again)
        with connection.transaction():
            self._record(migration)

    def _execute(self, migration: Migration, *, again: bool) -> None:
        session = self._session
        session.apply_settings(SETTINGS)
        # A statement whose client was killed would otherwise run to its end, and keep the lock for as long. Not every
        # server's system can look for that.
        with suppress(psycopg.errors.InvalidParameterValue), session.connection.transaction():
            session.connection.execute("SET client_connection_check_interval = '1s'")
        # The one place where names are looked up in the service's schema: that it is safe to was looked at before.
        schema = '"' + session.schema.replace('"', '""') + '"'
        session.apply_settings({"search_path": schema})
        try:
            for text in self._texts(migration):
                if not self._is_transactional(migration) and self._is_done(text, again=again):
                    continue
                self._statement = text
                with self._notices(text):
                    session.connection.execute(text.encode())
        finally:
            if not session.connection.closed and session.connection.info.transaction_status in (
                psycopg.pq.TransactionStatus.IDLE,
                psycopg.pq.TransactionStatus.INTRANS,
            ):
                session.reset()
        self._statement = None

    def _is_done(self, text: str, *, again: bool) -> bool:
        """Whether a run that was cut short came so far. An index of which only a part was built is dropped."""
        if index := statements.index_of(text):
            name, table, schema = index
            schema = schema or self._session.schema
            row = self._session.fetch_one("index", schema=schema, name=name)
            if row == (table, False):
                self._say(f"dropping the invalid index {name}, which a build that was cut short left behind")
                _drop_index(self._session, schema, name)
            return again and row == (table, True)
        if not again:
            return False
        made, gone = statements.made(text), statements.dropped(text)
        return (bool(made) and None not in guard.existing(self._session, made)) or (
            bool(gone) and not any(guard.existing(self._session, gone))
        )

    @contextmanager
    def _notices(self, text: str) -> Generator[None]:
        """Passes on what PostgreSQL says, and stops where it passed over something that is there."""
        met: list[str] = []

        def note(said: psycopg.errors.Diagnostic) -> None:
            message = said.message_primary or ""
            other = said.sqlstate == OTHER_EXISTS and statements.hides_others(text) and not _is_added_value(text)
            if said.sqlstate in EXISTS or other:
                met.append(message)
            else:
                self._say(f"{said.severity or 'NOTICE'}: {message}")

        self._session.connection.add_notice_handler(note)
        try:
            yield
        finally:
            self._session.connection.remove_notice_handler(note)
        if met:
            raise _Foreign(met[0].removesuffix(", skipping"))

    def _texts(self, migration: Migration) -> tuple[str, ...]:
        return migration.statements if self._direction == "apply" else migration.rollback or ()

    def _is_transactional(self, migration: Migration) -> bool:
        return migration.transactional if self._direction == "apply" else migration.rollback_transactional

    def _record(self, migration: Migration) -> None:
        """Writes yoyo's two tables as yoyo does."""
        digest = yoyo_format.digest(migration.id)
        if self._direction == "apply":
            self._session.execute("record_applied", digest=digest, id=migration.id, checksum=migration.checksum)
        else:
            self._session.execute("record_rolled_back", digest=digest)
        self._note(migration, self._direction)

    def _note(self, migration: Migration, operation: str) -> None:
        self._session.execute(
            "record_operation",
            digest=yoyo_format.digest(migration.id),
            id=migration.id,
            operation=operation,
            username=lock.username(),
            hostname=socket.gethostname(),
        )

    def _note_failure(self, migration: Migration) -> None:
        """So that a rollback does not take the migration before for the one that failed."""
        if self._direction == "apply" and not self._session.pooled:
            with suppress(psycopg.Error):
                self._note(migration, "failed")


def _is_added_value(text: str) -> bool:
    """ALTER TYPE … ADD VALUE IF NOT EXISTS: a value of an enum that is the migration's own."""
    return [token.keyword for token in tokens(text)[:2]] == ["ALTER", "TYPE"]


def _drop_index(session: Session, schema: str, name: str) -> None:
    text = sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(schema, name))
    session.connection.execute(text)
