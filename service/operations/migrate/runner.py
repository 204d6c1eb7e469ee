"""The run of one migration: its transaction, its record, its retries, and the words for its failure."""

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple

import psycopg
from psycopg import sql

from service.operations.migrate import guard, lock, statements, yoyo_format
from service.operations.migrate.errors import MigrationError
from service.operations.migrate.files import Migration
from service.operations.migrate.notices import Foreign, noticed
from service.operations.migrate.reader import tokens
from service.operations.migrate.session import SETTINGS, Session, first_line
from service.operations.migrate.watch import Watch, holders

RETRY_S = 1.0  # in which those who queued behind the lock are served
SAY_EVERY_S = 10.0  # that it still waits
Progress = Callable[[Migration, float | None], None]  # the seconds it took, None as it begins
Say = Callable[[str], None]
Direction = Literal["apply", "rollback"]
BEGUN = {"apply": "applying", "rollback": "reverting"}
DONE = {"apply": "applied", "rollback": "rolled back"}
BRIEF = 80  # characters of a statement in a sentence


class Command(NamedTuple):
    """What the runs of one command share. `deadline`: until then (time.monotonic), a run tries again to get a lock."""

    session: Session
    url: str
    direction: Direction
    deadline: float
    say: Say
    progress: Progress


class MigrationRun:
    """One migration with its record. `again`: it was begun before, outside a transaction, and not finished."""

    def __init__(self, command: Command, migration: Migration, *, again: bool) -> None:
        self._session, self._url, self._direction, self._deadline, self._say, self._progress = command
        self._migration = migration
        self._again = again
        if command.direction == "apply":
            self._path, self._texts, self._transactional = migration.path, migration.statements, migration.transactional
        else:
            self._path, self._texts = migration.rollback_path, migration.rollback or ()
            self._transactional = migration.rollback_transactional
        self._silent_until = 0.0
        self._retries = False  # this process has tried it before
        self._done: set[int] = set()  # the places of its statements that are done and stay so, outside a transaction
        self._statement: str | None = None  # that is being run

    def run(self) -> None:
        """Raises MigrationError.

        Tries again where lock_timeout ends its wait for a lock: that is short, so that requests do not queue behind it.
        """
        self._progress(self._migration, None)
        begin = time.monotonic()
        while True:
            try:
                with Watch(self._url, self._session.connection.info.backend_pid, self._migration.id, self._say):
                    self._once()
            except psycopg.errors.LockNotAvailable as error:
                self._wait(error)
                self._retries = True
            except Foreign as error:
                raise MigrationError(
                    f"{self._migration.id} was not applied: {error}, and it did not make that{self._rest()}"
                ) from None
            except psycopg.Error as error:
                raise self._failure(error) from error
            else:
                self._progress(self._migration, time.monotonic() - begin)
                return

    def _wait(self, error: psycopg.Error) -> None:
        names = sorted({token.name for text in self._texts for token in tokens(text)})
        who = None
        with suppress(psycopg.Error):
            who = holders(self._session, names)
        # Through a pooler, the transaction around keeps the locks of the migrations before.
        if self._session.pooled or time.monotonic() > self._deadline:
            raise MigrationError(
                f"{self._migration.id} gave up waiting for a lock that others hold: "
                + (f"{who}. End it with pg_terminate_backend, or" if who else "see pg_locks, or")
                + f" try when there is less going on{self._rest()}"
            ) from error
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + SAY_EVERY_S
            self._say(
                f"{self._migration.id} waits for a lock that others hold{f', {who}' if who else ''}; trying again"
            )
        time.sleep(RETRY_S)

    def _failure(self, error: psycopg.Error) -> MigrationError:
        """The error with PostgreSQL's detail, hint and place, and what is left to do."""
        parts = [f"{self._migration.id} failed: {first_line(error)} (SQLSTATE {error.sqlstate})"]
        parts += [
            f"{name}: {' '.join(text.split()).rstrip('.')}"
            for name, text in (("DETAIL", error.diag.message_detail), ("HINT", error.diag.message_hint))
            if text
        ]
        if place := self._place(error):
            parts.append(place)
        parts.append(self._left())
        return MigrationError("; ".join(parts))

    def _rest(self) -> str:
        """The end of a sentence that says that it was not applied."""
        left = self._left()
        return "" if self._transactional else f"; {left}"

    def _left(self) -> str:
        """What is done of it, what is left to do, and what to do about that; an invalid index is dropped."""
        if self._session.connection.closed:
            return f"the connection is lost: run `migrate {self._direction}` again"
        if self._transactional:
            self._note_failure()
            return f"nothing of it was {DONE[self._direction]}"
        dropped, steps = "", list(enumerate(self._texts))
        for index in [index for _, text in steps if (index := statements.index_of(text))]:
            name, schema = index[0], index[2] or self._session.schema
            try:
                row = self._session.fetch_one("index", schema=schema, name=name)
                if row is not None and not row[1]:
                    # Nobody else made it: that nothing of this name was there was looked at before.
                    _drop_index(self._session, schema, name)
                    dropped = dropped or f'the invalid index "{name}" that it left was dropped; '
            except psycopg.Error:
                index_name = sql.Identifier(schema, name).as_string()
                return (
                    f'it may have left the invalid index "{name}" behind: DROP INDEX CONCURRENTLY {index_name}, or '
                    f"run `migrate {self._direction}` again, which does so"
                )
        mend = f"{dropped}mend the cause and run `migrate {self._direction}` again"
        if not self._left_something():
            self._note_failure()
            return mend
        done = [_brief(text) for place, text in steps if place in self._done]
        left = [_brief(text) for place, text in steps if place not in self._done and statements.does_something((text,))]
        return (
            (f"done before that, and still there: {'; '.join(done)}; " if done else "")
            + (f"left to do: {'; '.join(left)}; " if left else "")
            + f"{mend}, which does what is left"
        )

    def _left_something(self) -> bool:
        """Whether a part of it is done, or may be: then it is incomplete and not undone."""
        if self._done:
            return True
        if (text := self._statement) is None:
            return self._again
        gone = [thing for thing in statements.dropped(text) if thing.kind == "index"]
        for thing in gone:  # DROP INDEX CONCURRENTLY first makes it invalid, in a transaction that stays
            with suppress(psycopg.Error):
                row = self._session.fetch_one("index", schema=thing.schema or self._session.schema, name=thing.name)
                if row is not None and not row[1]:
                    return True
        # An earlier run may have been killed behind a statement of which nothing can be seen.
        return self._again and not (statements.made(text) or statements.dropped(text))

    def _place(self, error: psycopg.Error) -> str | None:
        """The line of the file that PostgreSQL points at, or that the statement begins in."""
        text = self._path.read_text("utf-8")
        begin = text.find(self._statement) if self._statement else -1
        if begin < 0:
            return None
        at = begin + int(error.diag.statement_position or 1) - 1
        start = text.rfind("\n", 0, at) + 1 if error.diag.statement_position else begin
        line = text[start:].partition("\n")[0].strip().rstrip(";")
        return f"at line {text.count(chr(10), 0, at) + 1} of {self._path.name}: {line}"

    def _once(self) -> None:
        """In one transaction with its record or, where it runs outside of one, recorded before and after."""
        self._statement = None
        connection = self._session.connection
        if self._transactional:
            with connection.transaction():
                self._execute()
                self._record()
            return
        self._note(BEGUN[self._direction])
        self._execute()
        with connection.transaction():
            self._record()

    def _execute(self) -> None:
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
            stays = not self._transactional
            for place, text in enumerate(self._texts):
                if stays and (place in self._done or self._is_done(text)):
                    self._done.add(place)
                    continue
                self._statement = text
                with noticed(session.connection, text, self._say):
                    session.connection.execute(text.encode())
                if stays and statements.does_something((text,)):
                    self._done.add(place)
        finally:
            if not session.connection.closed and session.connection.info.transaction_status in (
                psycopg.pq.TransactionStatus.IDLE,
                psycopg.pq.TransactionStatus.INTRANS,
            ):
                session.reset()
        self._statement = None

    def _is_done(self, text: str) -> bool:
        """Whether a run that was cut short came so far. An index of which only a part was built is dropped."""
        if index := statements.index_of(text):
            name, table, schema = index
            schema = schema or self._session.schema
            row = self._session.fetch_one("index", schema=schema, name=name)
            if row == (table, False):
                if not self._retries:
                    self._say(f"dropping the invalid index {name}, which a build that was cut short left behind")
                _drop_index(self._session, schema, name)
            return self._again and row == (table, True)
        if not self._again:
            return False
        made, gone = statements.made(text), statements.dropped(text)
        return (bool(made) and None not in guard.existing(self._session, made)) or (
            bool(gone) and not any(guard.existing(self._session, gone))
        )

    def _record(self) -> None:
        """Writes yoyo's two tables as yoyo does."""
        digest = yoyo_format.digest(self._migration.id)
        if self._direction == "apply":
            self._session.execute(
                "record_applied", digest=digest, id=self._migration.id, checksum=self._migration.checksum
            )
        else:
            self._session.execute("record_rolled_back", digest=digest)
        self._note(self._direction)

    def _note(self, operation: str) -> None:
        self._session.execute(
            "record_operation",
            digest=yoyo_format.digest(self._migration.id),
            id=self._migration.id,
            operation=operation,
            username=lock.username(),
            hostname=socket.gethostname(),
        )

    def _note_failure(self) -> None:
        """So that a rollback does not take the migration before for the one that failed, and that what was begun
        outside a transaction does not count as begun.
        """
        noted = self._direction == "apply" or not self._transactional
        if noted and not self._session.pooled:
            with suppress(psycopg.Error):
                self._note("failed")


def _brief(statement: str) -> str:
    text = " ".join(statement.split()).rstrip("; ")
    return text if len(text) <= BRIEF else text[: BRIEF - 1] + "…"


def _drop_index(session: Session, schema: str, name: str) -> None:
    text = sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(schema, name))
    session.connection.execute(text)
