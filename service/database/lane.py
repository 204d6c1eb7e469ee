"""A lane: one pooled connection in pipeline mode, with many statements under way on it at once.

psycopg's `execute` costs about 100 µs of CPU a query; the same connection driven through libpq's pipeline mode
(`psycopg.pq`) costs about 10. A lane sends each statement at once, followed by a Sync of its own, so that every
statement is its own transaction and a failure touches nobody else, and hands out the replies in the order sent.

Knows libpq's protocol states (PostgreSQL's documentation, "Pipeline Mode"). Must not know pools, scheduling, retries or
what a statement means: what a call's end entails is the owner's business.
"""

import asyncio
import ctypes
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import pq

from service.database.statement import Statement, Value

# Plain ints: a PGresult's status is one, and comparing with an enum's member costs three times as much.
_OK = (int(pq.ExecStatus.TUPLES_OK), int(pq.ExecStatus.COMMAND_OK))
_SYNC = int(pq.ExecStatus.PIPELINE_SYNC)
_ABORTED = int(pq.ExecStatus.PIPELINE_ABORTED)
_FATAL = int(pq.ExecStatus.FATAL_ERROR)
_BINARY = pq.Format.BINARY


def _find_send_sync() -> Any:
    """PQsendPipelineSync of the libpq that psycopg has loaded; None where that is older than 17.

    psycopg wraps PQpipelineSync only, which writes to the socket at once: a system call for each statement, a fifth of
    what a call costs. This one leaves the writing to PQflush. `pgconn_ptr` is there for such calls.
    """
    try:
        function = ctypes.PyDLL(sys.modules[pq.PGconn.__module__].__file__ or "").PQsendPipelineSync
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_void_p]
    function.restype = ctypes.c_int
    return function


_send_sync = _find_send_sync()


def sqlstate_of(error: pq.abc.PGresult) -> str | None:
    """PostgreSQL's five-character code of an error result; None where the error is libpq's own."""
    code = error.error_field(pq.DiagnosticField.SQLSTATE)
    return None if code is None else code.decode()


class Call:
    """One caller's wish: a statement with its values, and the future that gets its result or its failure."""

    __slots__ = (
        "begun",
        "deadline",
        "future",
        "hedged",
        "holds",
        "key",
        "moved",
        "name",
        "overdue",
        "replies",
        "sent",
        "statement",
        "tries",
        "values",
    )

    name: bytes  # the prepared statement's that it was sent with
    replies: int  # results that PostgreSQL owes it: one, and one more where it prepares its statement first

    def __init__(
        self,
        statement: Statement[Any],
        values: list[Value],
        future: "asyncio.Future[pq.abc.PGresult]",
        begun: float,
        deadline: float,
        key: tuple[Value, ...] | None,
    ) -> None:
        self.statement = statement
        self.values = values
        self.future = future
        self.begun = begun  # loop time
        self.deadline = deadline  # loop time
        self.key = key  # the row that it locks, None where it locks none that others want
        self.holds = False  # others with its key wait until it has ended
        self.sent = False
        self.overdue = False  # cancelled for good: the statement limit has passed, or nobody waits for it
        self.moved = False  # cancelled once so that those behind it could pass
        self.hedged = False  # asked a second time on another lane, or the one that asks
        self.tries = 0


class Lane:
    """Drives `connection`, which must be idle and in autocommit.

    `ended(lane, call, result, error)` is called once for every call sent, in order: with the result, or with the error
    result that PostgreSQL gave. `lost(lane, calls, reason, sqlstate)` is called once, when the connection cannot be
    used any more, with the calls that got no answer and PostgreSQL's code where it gave one. The connection is left for
    the owner to close. Either may be called from within `send` and `read`, and may itself send.
    """

    __slots__ = (
        "_ended",
        "_error",
        "_flushing",
        "_loop",
        "_lost",
        "_names",
        "_pgconn",
        "_prepare",
        "_prepared",
        "_replies",
        "_result",
        "_socket",
        "_writing",
        "calls",
        "cancels",
        "closed",
        "connection",
        "exclusive",
        "head_since",
        "idle_since",
        "retires_at",
    )

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        *,
        prepare: bool,
        lifetime_s: float,
        ended: Callable[["Lane", Call, pq.abc.PGresult | None, pq.abc.PGresult | None], None],
        lost: Callable[["Lane", list[Call], str, str | None], None],
    ) -> None:
        self.connection = connection
        self.calls: deque[Call] = deque()  # sent and not answered, oldest first
        self.cancels = 0  # that the owner sent and whose effect has not been seen
        self.exclusive = False  # the owner wants nobody else on it until it is empty
        self._loop = asyncio.get_running_loop()
        self.idle_since = self.head_since = self._loop.time()
        self.retires_at = self.idle_since + lifetime_s
        self._pgconn = connection.pgconn
        self._socket = self._pgconn.socket  # libpq forgets it when it finds the connection broken
        self._prepare = prepare
        self._prepared: dict[Statement[Any], bytes] = {}
        self._names = 0
        self._ended = ended
        self._lost = lost
        self._replies = 0  # results of the oldest call so far
        self._result: pq.abc.PGresult | None = None
        self._error: pq.abc.PGresult | None = None
        self._writing = False  # the socket takes no more for now
        self._flushing = False  # a flush is due in this turn of the event loop
        self.closed = False
        self._pgconn.nonblocking = 1
        self._pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self.read)

    def send(self, call: Call) -> None:
        """Sends the call now. Its end is told by `ended` or `lost`, never by an exception from here."""
        pgconn, statement = self._pgconn, call.statement
        if not self.calls:
            self.head_since = self._loop.time()
        self.calls.append(call)
        try:
            if self._prepare:
                name = self._prepared.get(statement)
                if name is None:
                    self._names += 1
                    name = self._prepared[statement] = b"%s_%d" % (statement.name.encode(), self._names)
                    pgconn.send_prepare(name, statement.sql.encode())
                    call.replies = 2
                else:
                    call.replies = 1
                call.name = name
                pgconn.send_query_prepared(name, call.values, result_format=_BINARY)
            else:
                call.replies = 1
                pgconn.send_query_params(statement.sql.encode(), call.values, result_format=_BINARY)
            call.sent = True  # before its Sync, PostgreSQL commits nothing
            self._sync()
        except psycopg.Error as error:
            self.lose(str(error))

    def forget(self, call: Call) -> None:
        """The statement will be prepared anew, under another name, unless it already was since the call was sent."""
        if self._prepare and self._prepared.get(call.statement) == call.name:
            del self._prepared[call.statement]

    def read(self) -> None:
        """Takes what has arrived, and hands out what is complete."""
        try:
            self._pgconn.consume_input()
            self._hand_out()
            if self._writing and not self.closed:
                self._flush()
        except psycopg.Error as error:
            last = self._error  # FATAL: PostgreSQL's or the pooler's parting words
            if last is None or last.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) == b"ERROR":
                self.lose(str(error))
            else:
                self.lose(last.get_error_message(), sqlstate_of(last))

    def lose(self, reason: str, sqlstate: str | None = None) -> None:
        """Gives the connection up: every call under way is handed back unanswered."""
        if self.closed:
            return
        self.close()
        calls = list(self.calls)
        self.calls.clear()
        self._lost(self, calls, reason.strip(), sqlstate)

    def close(self) -> None:
        """Lets go of the socket, before the connection is closed. Only when no call is under way."""
        self.closed = True
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)
            self._writing = False

    def _hand_out(self) -> None:
        pgconn, calls = self._pgconn, self.calls
        while calls and not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                raise psycopg.OperationalError("calls wait for replies that libpq does not")
            status = result.status
            if status == _SYNC:
                # Only now is the statement committed: its rows come before the Sync that ends its transaction, and an
                # error may come between the two.
                result, self._result = self._result, None
                error, self._error = self._error, None
                replies, self._replies = self._replies, 0
                if error is None and replies != calls[0].replies:
                    raise psycopg.OperationalError("the replies are out of step with the statements")
                call = calls.popleft()
                self.head_since = self._loop.time()
                if not calls:
                    self.idle_since = self.head_since
                    self.exclusive = False
                self._ended(self, call, result, error)
                continue
            if status in _OK:
                self._result = result
                self._replies += 1
            elif status == _FATAL:
                if sqlstate_of(result) is None:  # libpq cannot make sense of what it reads, or reads no more
                    raise psycopg.OperationalError(result.get_error_message())
                self._error = result
            elif status != _ABORTED:
                raise psycopg.OperationalError(f"unexpected reply {pq.ExecStatus(status).name}")
            if pgconn.get_result() is not None:  # never blocks: after each result but a Sync's, libpq has a None ready
                raise psycopg.OperationalError("a statement gave two results")

    def _sync(self) -> None:
        """Ends the statement's transaction. What is sent in one turn of the event loop leaves in one write."""
        pgconn = self._pgconn
        if _send_sync is None:
            pgconn.pipeline_sync()
            self._flush()
        elif not _send_sync(pgconn.pgconn_ptr):  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
            raise psycopg.OperationalError(pgconn.get_error_message())
        elif not self._flushing and not self._writing:
            self._flushing = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        if not self.closed:
            try:
                self._flush()
            except psycopg.Error as error:
                self.lose(str(error))

    def _flush(self) -> None:
        # While the server's and our buffers are both full, progress needs reading too: the reader is always on, so
        # waiting for writable here cannot stall both sides. A flush that finds the socket full also reads, and then no
        # event tells of what it read: hence `read` for both.
        unsent = self._pgconn.flush()
        if unsent and not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket, self.read)
        elif not unsent and self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket)
