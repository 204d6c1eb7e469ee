"""A lane: one pooled connection in pipeline mode, with many statements in flight on it at once.

psycopg's `execute` costs about 100 µs of CPU a query; the same connection driven through libpq's pipeline mode
(`psycopg.pq`) costs about 10. A lane sends groups of calls. The statements of a group are followed by one Sync, so they
are one transaction: they commit together, and results are handed out only when PostgreSQL has confirmed the commit.
Most groups have one member.

Sending follows libpq's rules (PostgreSQL's documentation, "Pipeline Mode"). One file, although it is long: sending,
reading and cancelling change the same few states, and each call between objects would be paid for each statement. Must
not import pools, scheduling or retries: the owner decides what follows from a call's end.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from enum import IntEnum
from typing import Any, Protocol

import psycopg
from psycopg import pq

from service.database.call import Call, CallState
from service.database.failures import NOTHING_COMMITTED, ServerError
from service.database.libpq import send_sync, server_error
from service.database.statement import Prepared, Statement

log = logging.getLogger("service.database")

# Plain ints: a PGresult's status is one, and comparing with an enum's member costs three times as much.
_ROWS = int(pq.ExecStatus.TUPLES_OK)
_OK = (_ROWS, int(pq.ExecStatus.COMMAND_OK))
_SYNC = int(pq.ExecStatus.PIPELINE_SYNC)
_ABORTED = int(pq.ExecStatus.PIPELINE_ABORTED)
_FATAL = int(pq.ExecStatus.FATAL_ERROR)
_ONE_ROW = frozenset((b"SELECT 1", b"INSERT 0 1", b"UPDATE 1", b"DELETE 1"))
_BINARY = pq.Format.BINARY
_IN_FLIGHT = CallState.IN_FLIGHT


class LaneState(IntEnum):
    OPEN = 0
    CANCELLING = 1  # a cancel is on its way: nothing is sent that it could hit by mistake
    RETIRING = 2  # takes nothing new, and is closed when it is empty
    CLOSED = 3


LANE_TRANSITIONS: tuple[tuple[LaneState, ...], ...] = (
    (LaneState.CANCELLING, LaneState.RETIRING, LaneState.CLOSED),  # from OPEN
    (LaneState.OPEN, LaneState.RETIRING, LaneState.CLOSED),  # from CANCELLING
    (LaneState.OPEN, LaneState.CLOSED),  # from RETIRING: open again for the other kind of calls
    (),  # from CLOSED
)


class Output(IntEnum):
    """What libpq's buffer for sending holds."""

    EMPTY = 0
    UNFLUSHED = 1
    BLOCKED = 2  # the socket takes no more for now


class Group:
    """What one Sync ends. `expected` has an entry for each result that PostgreSQL owes: the call whose rows it holds,
    the statement that it prepares, or None for BEGIN, COMMIT and ROLLBACK."""

    __slots__ = ("calls", "expected", "sent")

    def __init__(self, calls: Sequence[Call], sent: float) -> None:
        self.calls = calls
        self.sent = sent  # when, by the event loop's clock
        self.expected: list[Call | Statement[Any] | None] = []


class LaneOwner(Protocol):
    """What a lane tells. Each may be called from within `send`, `flush` and `read`, and may itself send."""

    def answered(self, lane: "Lane", group: Group, results: list[pq.abc.PGresult]) -> None:
        """The group is committed. The results are in the order of `group.expected`."""
        ...

    def failed(self, lane: "Lane", group: Group, error: ServerError, culprit: Call | None) -> None:
        """PostgreSQL rolled the group back. `culprit` is the call with the error; None: it came at the commit."""
        ...

    def lost(self, lane: "Lane", doubtful: list[Call], unsent: list[Call], reason: str, sqlstate: str | None) -> None:
        """Called once, when the connection cannot be used any more, which is left for the owner to close. PostgreSQL
        may have done the doubtful calls; it has not done the unsent ones."""
        ...

    def emptied(self) -> None:
        """Nothing is in flight on one of its lanes any more, and no cancel either."""
        ...


# An Enum's member looked up by its class costs as much as a method call.
_OPEN, _CANCELLING, _CLOSED = LaneState.OPEN, LaneState.CANCELLING, LaneState.CLOSED
_EMPTY, _UNFLUSHED, _BLOCKED = Output.EMPTY, Output.UNFLUSHED, Output.BLOCKED


class Lane:
    """Drives `connection`, which must be idle and in autocommit.

    Calls are told apart by their order alone, so whatever is out of order ends the lane. `generations` says for each
    statement how many texts of it were given up; the lanes of a process share it. With `begin_commit`, writes are sent
    between BEGIN and COMMIT. `schema` is where the tables are.
    """

    __slots__ = (
        "_cancelling",
        "_error",
        "_failed_at",
        "_generations",
        "_loop",
        "_names",
        "_owner",
        "_parting",
        "_pgconn",
        "_prepare",
        "_prepared",
        "_results",
        "_schema",
        "_strange",
        "begin_commit",
        "cancels",
        "connection",
        "groups",
        "head_since",
        "idle_since",
        "in_flight",
        "output",
        "retires_at",
        "socket",
        "state",
    )

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        owner: LaneOwner,
        *,
        prepare: bool,
        begin_commit: bool,
        schema: str,
        lifetime_s: float,
        generations: dict[Statement[Any], int],
    ) -> None:
        self.connection = connection
        self.groups: deque[Group] = deque()  # sent and not answered, oldest first
        self.in_flight = 0  # their calls
        self.state = _OPEN
        self.begin_commit = begin_commit
        self.cancels = 0  # whose effect has not been seen
        self._cancelling = 0  # of them, those whose request is still on its way
        self._loop = asyncio.get_running_loop()
        self.idle_since = self.head_since = self._loop.time()  # head_since: since when the first group is the first
        self.retires_at = self.idle_since + lifetime_s
        self._owner = owner
        self._pgconn = connection.pgconn
        self.socket = self._pgconn.socket  # libpq forgets it when it finds the connection broken
        self._prepare = prepare
        self._prepared: dict[Statement[Any], Prepared] = {}
        self._names = 0
        self._generations = generations
        self._schema = schema
        self._results: list[pq.abc.PGresult] = []  # of the first group, so far
        self._error: pq.abc.PGresult | None = None
        self._failed_at = 0  # how many results came before the error
        self._parting: ServerError | None = None  # what PostgreSQL said before it ended an idle session
        self._strange: str | None = None  # what must not have arrived
        self.output = _EMPTY
        self._pgconn.nonblocking = 1
        self._pgconn.enter_pipeline_mode()
        self._pgconn.notice_handler = self._notice
        self._loop.add_reader(self.socket, self.read)

    @property
    def idle(self) -> bool:
        """Nothing is in flight, and no cancel is on its way that could hit what is sent next."""
        return not self.groups and not self._cancelling

    @property
    def read_only(self) -> bool:
        """Whether a setting of the role, the database or the server makes every write fail.

        PostgreSQL reports it by itself, also when it changes; a pooler in between may not.
        """
        return self._pgconn.parameter_status(b"default_transaction_read_only") == b"on"

    def move(self, state: LaneState) -> None:
        """Every change of state comes through here."""
        assert state in LANE_TRANSITIONS[self.state], f"{self.state.name} → {state.name}"
        self.state = state

    def send(self, calls: Sequence[Call], now: float) -> None:
        """Sends the calls as one group; `flush` writes it. What becomes of it, the owner is told, never by an exception
        from here.
        """
        pgconn = self._pgconn
        if not self.groups:
            self.head_since = now
        group = Group(calls, now)
        expected = group.expected
        self.groups.append(group)
        self.in_flight += len(calls)
        try:
            begin_commit = self.begin_commit and calls[0].statement.writes
            if begin_commit:
                pgconn.send_query_params(b"BEGIN", None)
                expected.append(None)
            for call in calls:
                statement = call.statement
                if self._prepare:
                    prepared = self._prepared.get(statement)
                    if prepared is None:
                        generation = self._generations.get(statement, 0)
                        self._names += 1
                        prepared = Prepared(b"%s_%d" % (statement.name.encode(), self._names), generation)
                        self._prepared[statement] = prepared
                        pgconn.send_prepare(prepared.name, statement.text(generation, self._schema))
                        expected.append(statement)
                    call.prepared = prepared
                    pgconn.send_query_prepared(prepared.name, call.values, None, _BINARY)
                else:
                    pgconn.send_query_params(statement.text(0, self._schema), call.values, None, None, _BINARY)
                expected.append(call)
            if begin_commit:
                pgconn.send_query_params(b"COMMIT", None)
                expected.append(None)
            for call in calls:
                call.move(_IN_FLIGHT)  # before the Sync, PostgreSQL commits nothing
            self._sync()
        except psycopg.Error as error:
            self.lose(str(error))

    def flush(self) -> None:
        """Writes what `send` left in libpq's buffer. What one turn of the event loop sends leaves in one write."""
        if self.output is not _EMPTY and self.state is not _CLOSED:
            try:
                self._flush()
            except psycopg.Error as error:
                self.lose(str(error))

    def forget(self, call: Call, *, new_text: bool) -> bool:
        """The call's statement will be prepared anew, under another name and, if asked for, as another text. False
        where it already was since the call was sent.
        """
        if not self._prepare:
            return True  # it was sent as its own text, so no earlier error can have dropped it
        if self._prepared.get(call.statement) is not call.prepared:
            return False
        del self._prepared[call.statement]
        if new_text and self._generations.get(call.statement, 0) == call.prepared.generation:
            self._generations[call.statement] = call.prepared.generation + 1
        return True

    def cancel(self, timeout_s: float) -> Coroutine[Any, Any, None]:
        """Asks PostgreSQL to cancel the first group, by the coroutine returned.

        A cancel request works through a transaction-mode pooler, where a SET does not. It may arrive when its statement
        has just ended. Until that is known, nothing more is sent, and a statement that it hit by mistake can be sent
        again: see `cancels`.
        """
        self.cancels += 1
        self._cancelling += 1
        if self.state is _OPEN:
            self.move(_CANCELLING)
        return self._send_cancel(timeout_s)

    async def _send_cancel(self, timeout_s: float) -> None:
        try:
            await self.connection.cancel_safe(timeout=timeout_s)
        except (psycopg.Error, OSError) as error:
            log.warning("a statement could not be cancelled: %s", str(error).partition("\n")[0])
        finally:
            self._cancelling -= 1
            if self.idle and self.state is not _CLOSED:
                self._settle()

    def read(self) -> None:
        """Reads the results that have arrived, and passes complete groups on."""
        try:
            try:
                self._pgconn.consume_input()
            except psycopg.Error:
                self._hand_out()  # what came before the end of the connection counts
                raise
            self._hand_out()
            if self.output is _BLOCKED and self.state is not _CLOSED:
                self._flush()
        except psycopg.Error as error:
            parting = self._parting
            if self._error is not None:  # FATAL: PostgreSQL's or the pooler's parting words
                severity = self._error.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED)
                parting = None if severity == b"ERROR" else server_error(self._error)
            if parting is None:
                self.lose(str(error))
            else:
                self.lose(parting.message, parting.sqlstate)
        except Exception:  # a bug: replies may have been lost with it, so nobody waits for them
            log.exception("a bug in handling PostgreSQL's replies")
            self.lose("a bug in handling PostgreSQL's replies")

    def lose(self, reason: str, sqlstate: str | None = None) -> None:
        """Gives the connection up: every call in flight is handed back unanswered."""
        if self.state is _CLOSED:
            return
        self.close()
        doubtful, unsent = list[Call](), list[Call]()
        for group in self.groups:
            for call in group.calls:
                # Once its Sync is in libpq's buffer, nothing tells whether it has left.
                uncommitted = call.state is not _IN_FLIGHT or sqlstate in NOTHING_COMMITTED
                (unsent if uncommitted else doubtful).append(call)
        self.groups.clear()
        self.in_flight = 0
        self._owner.lost(self, doubtful, unsent, reason.strip(), sqlstate)

    def close(self) -> None:
        """Lets go of the socket, before the connection is closed."""
        self.move(_CLOSED)
        self._pgconn.notice_handler = None
        self._loop.remove_reader(self.socket)
        if self.output is _BLOCKED:
            self._loop.remove_writer(self.socket)

    def _notice(self, result: pq.abc.PGresult) -> None:
        """PostgreSQL's notices have a SQLSTATE. Without one, it is libpq's, about a message that nothing asked for."""
        error = server_error(result)
        if error is None:
            self._strange = result.get_error_message().strip()
        elif error.routine == "SyncRepWaitForLSN":
            # The commit's wait for a standby was interrupted: it may be lost with this server, so it is not confirmed.
            self._strange = error.message
        elif result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) in (b"FATAL", b"PANIC"):
            self._parting = error

    def _hand_out(self) -> None:
        pgconn, groups = self._pgconn, self.groups
        while groups and not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                raise psycopg.OperationalError("calls wait for replies that libpq does not")
            status = result.status
            if status == _SYNC:
                # Only now is the group committed: its rows come before the Sync that ends its transaction, and an
                # error may come between the two.
                self._end_group()
                continue
            if status in _OK:
                # PostgreSQL says at the end how many rows it sent. One row is the most frequent case.
                if (
                    status == _ROWS
                    and not (result.ntuples == 1 and result.command_status in _ONE_ROW)
                    and result.command_tuples not in (result.ntuples, None)
                ):
                    raise psycopg.OperationalError("a result has more or fewer rows than PostgreSQL sent")
                self._results.append(result)
            elif status == _FATAL:
                if result.error_field(pq.DiagnosticField.SQLSTATE) is None:
                    # libpq cannot make sense of what it reads, or reads no more
                    raise psycopg.OperationalError(result.get_error_message())
                self._error, self._failed_at = result, len(self._results)
                self._results.append(result)
            elif status == _ABORTED:
                self._results.append(result)
            else:
                raise psycopg.OperationalError(f"unexpected reply {pq.ExecStatus(status).name}")
            if pgconn.get_result() is not None:  # never blocks: after each result but a Sync's, libpq has a None ready
                raise psycopg.OperationalError("a statement gave two results")
        if not groups and self.state is not _CLOSED:
            pgconn.is_busy()  # looks at what has come in spite of it, which goes to _notice
        if self._strange is not None:
            raise psycopg.OperationalError(self._strange)

    def _end_group(self) -> None:
        group = self.groups[0]
        if self._strange is not None:
            raise psycopg.OperationalError(self._strange)
        results, self._results = self._results, []
        error, self._error = self._error, None
        expected = group.expected
        at_commit = error is not None and self._failed_at == len(expected)
        if len(results) != len(expected) + at_commit:
            raise psycopg.OperationalError("the replies are out of step with the statements")
        self.groups.popleft()
        self.in_flight -= len(group.calls)
        self.head_since = self._loop.time()
        if error is None:
            if group.calls:
                self._owner.answered(self, group, results)
        else:
            self._end_failed_group(group, error)
        if not self.groups and self.state is not _CLOSED and not self._cancelling:
            self._settle()

    def _end_failed_group(self, group: Group, error: pq.abc.PGresult) -> None:
        what = server_error(error)
        assert what is not None
        for entry in group.expected[self._failed_at :]:
            if isinstance(entry, Statement):  # its Parse failed or was skipped: PostgreSQL has no such name
                self._prepared.pop(entry, None)
        if self._pgconn.transaction_status == pq.TransactionStatus.INERROR:  # within BEGIN … COMMIT
            self._roll_back()
        following = (entry for entry in group.expected[self._failed_at :] if isinstance(entry, Call))
        culprit = next(following, group.calls[0] if len(group.calls) == 1 else None)
        if group.calls:
            self._owner.failed(self, group, what, culprit)

    def _roll_back(self) -> None:
        if any(not group.calls for group in self.groups):
            return  # one is on its way
        group = Group((), self._loop.time())
        group.expected.append(None)
        self.groups.append(group)
        try:
            self._pgconn.send_query_params(b"ROLLBACK", None)
            self._sync()
        except psycopg.Error as error:
            self.lose(str(error))
        self.flush()

    def _settle(self) -> None:
        """The lane is empty and no cancel is on its way: one that hit nothing is over."""
        self.cancels = 0
        self.idle_since = self._loop.time()
        if self.state is _CANCELLING:
            self.move(_OPEN)
        self._owner.emptied()

    def _sync(self) -> None:
        """Ends the group's transaction."""
        pgconn = self._pgconn
        if send_sync is None:
            pgconn.pipeline_sync()  # which also flushes
        elif not send_sync(pgconn.pgconn_ptr):  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
            raise psycopg.OperationalError(pgconn.get_error_message())
        if self.output is _EMPTY:
            self.output = _UNFLUSHED

    def _flush(self) -> None:
        # While the server's and our buffers are both full, progress needs reading too: the reader is always on, so
        # waiting for writable here cannot stall both sides. A flush that finds the socket full also reads, and then no
        # event tells of what it read: hence `read` for both.
        unsent = self._pgconn.flush()
        if unsent and self.output is not _BLOCKED:
            self.output = _BLOCKED
            self._loop.add_writer(self.socket, self.read)
        elif not unsent:
            if self.output is _BLOCKED:
                self._loop.remove_writer(self.socket)
            self.output = _EMPTY
