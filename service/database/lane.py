"""A lane: one pooled connection in pipeline mode, with many statements under way on it at once.

psycopg's `execute` costs about 100 µs of CPU a query; the same connection driven through libpq's pipeline mode
(`psycopg.pq`) costs about 15. A lane sends each statement at once, followed by a Sync of its own, so that every
statement is its own transaction and a failure touches nobody else, and hands out the replies in the order sent.

Knows libpq's protocol states. Must not know pools, scheduling, retries or what a statement means: what a call's end
entails is the owner's business.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import pq

from service.database.statement import Statement, Value

_OK = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_SYNC = pq.ExecStatus.PIPELINE_SYNC
_ABORTED = pq.ExecStatus.PIPELINE_ABORTED
_FATAL = pq.ExecStatus.FATAL_ERROR
_BINARY = pq.Format.BINARY


def sqlstate_of(error: pq.abc.PGresult) -> str | None:
    """PostgreSQL's five-character code of an error result; None where the error is libpq's own."""
    code = error.error_field(pq.DiagnosticField.SQLSTATE)
    return None if code is None else code.decode()


class Call:
    """One caller's wish: a statement with its values, and the future that gets its result or its failure."""

    __slots__ = ("begun", "deadline", "future", "key", "overdue", "rescued", "sent", "statement", "tries", "values")

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
        self.sent = False
        self.overdue = False  # the statement limit has passed: a cancel is under way
        self.rescued = False  # sent a second time on another lane
        self.tries = 0


class Lane:
    """Drives `connection`, which must be idle and in autocommit.

    `ended(lane, call, result, error)` is called once for every call sent, in order: with the result, or with the error
    result that PostgreSQL gave. `lost(lane, calls, reason, sqlstate)` is called once, when the connection cannot be
    used any more, with the calls that got no answer and PostgreSQL's code where it gave one. The connection is left for
    the owner to close.
    """

    __slots__ = (
        "_closed",
        "_ended",
        "_error",
        "_loop",
        "_lost",
        "_names",
        "_pgconn",
        "_prepare",
        "_prepared",
        "_result",
        "_socket",
        "_writing",
        "calls",
        "cancelling",
        "connection",
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
        self.cancelling = False
        self._loop = asyncio.get_running_loop()
        self.idle_since = self.head_since = self._loop.time()
        self.retires_at = self.idle_since + lifetime_s
        self._pgconn = connection.pgconn
        self._socket = self._pgconn.socket
        self._prepare = prepare
        self._prepared: dict[Statement[Any], bytes] = {}
        self._names = 0
        self._ended = ended
        self._lost = lost
        self._result: pq.abc.PGresult | None = None
        self._error: pq.abc.PGresult | None = None
        self._writing = False
        self._closed = False
        self._pgconn.nonblocking = 1
        self._pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self._on_readable)

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
                pgconn.send_query_prepared(name, call.values, result_format=_BINARY)
            else:
                pgconn.send_query_params(statement.sql.encode(), call.values, result_format=_BINARY)
            call.sent = True  # before its Sync, PostgreSQL commits nothing
            pgconn.pipeline_sync()  # flushes as much as the socket takes
            self._flush()
        except psycopg.Error as error:
            self.lose(str(error))

    def forget(self, statement: Statement[Any]) -> None:
        """The statement will be prepared anew, under another name, when it is next sent."""
        self._prepared.pop(statement, None)

    def release(self) -> None:
        """Leaves pipeline mode, for a connection that goes back to the pool. Only when no call is under way."""
        self._stop()
        self._pgconn.exit_pipeline_mode()

    def lose(self, reason: str, sqlstate: str | None = None) -> None:
        """Gives the connection up: every call under way is handed back unanswered."""
        if self._closed:
            return
        self._stop()
        calls = list(self.calls)
        self.calls.clear()
        self._lost(self, calls, reason.strip(), sqlstate)

    def _stop(self) -> None:
        self._closed = True
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)
            self._writing = False

    def _flush(self) -> None:
        # While the server's and our buffers are both full, progress needs reading too: the reader is always on, so
        # waiting for writable here cannot stall both sides.
        unsent = self._pgconn.flush()
        if unsent and not self._writing:
            self._writing = True
            self._loop.add_writer(self._socket, self._on_writable)
        elif not unsent and self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket)

    def _on_writable(self) -> None:
        try:
            self._flush()
        except psycopg.Error as error:
            self.lose(str(error))

    def _on_readable(self) -> None:
        pgconn, calls = self._pgconn, self.calls
        try:
            pgconn.consume_input()
            ends = 0
            while calls and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:  # the end of one command's results; two in a row say that libpq awaits nothing
                    ends += 1
                    if ends > 1:
                        raise psycopg.OperationalError("the replies are out of step with the statements")
                    continue
                ends = 0
                status = result.status
                if status in _OK:
                    self._result = result
                elif status == _SYNC:
                    # Only now is the statement committed: its rows come before the Sync that ends its transaction.
                    result, self._result = self._result, None
                    error, self._error = self._error, None
                    if result is None and error is None:
                        raise psycopg.OperationalError("a statement ended without a result")
                    call = calls.popleft()
                    self.head_since = self._loop.time()
                    if not calls:
                        self.idle_since = self.head_since
                    self._ended(self, call, result, error)
                    if self._closed:
                        return
                elif status == _FATAL:
                    self._error = self._error or result
                elif status != _ABORTED:
                    raise psycopg.OperationalError(f"unexpected reply {pq.ExecStatus(status).name}")
            if pgconn.status != pq.ConnStatus.OK:
                raise psycopg.OperationalError(pgconn.get_error_message())
            if self._writing:
                self._flush()
        except psycopg.Error as error:
            if self._error is None:
                self.lose(str(error))
            else:
                self.lose(self._error.get_error_message(), sqlstate_of(self._error))
