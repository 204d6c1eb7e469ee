"""The only way to the database: `fetch_one`, `fetch_all`, `execute`, and what becomes of a call when it ends.

Nothing here holds a transaction: each statement is one, or shares one with other writes whose end it then shares. The
parts: a row queue, two lane pools with their connections, and a watchdog for time limits (see this package's README).

One file, although it is long: what a call does when it succeeds, fails, loses its connection or is retried is easier to
check in one place.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from itertools import starmap
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

from service.database.call import Call, CallState, Fetch
from service.database.connections import Connections
from service.database.connector import PostgresConnector
from service.database.failures import (
    Delay,
    InternalError,
    Retry,
    ServerError,
    TimedOut,
    Unavailable,
    error_class,
    retry_of,
)
from service.database.lane import Group, Lane
from service.database.lane_pool import LanePool
from service.database.row_queue import RowQueue
from service.database.schema_check import SchemaCheck
from service.database.statement import Statement
from service.database.stats import Stats, current_caller
from service.database.watchdog import CANCEL_GRACE_S, SWEEP_S, Watchdog

Row = TypeVar("Row")

log = logging.getLogger("service.database")

MAX_ATTEMPTS = 4
# Random delay before a deadlocked statement is retried, so that the two do not collide again: at once, one in four took
# its rows again before the other had woken.
CONFLICT_DELAY_S = (0.01, 0.05)
# Members of one group. A bound, because members hold each other's locks until the last is done. Beyond 32, the costs
# that a group shares are small against those of its members.
MAX_GROUP = 32
# A call whose group failed this often because of others goes alone.
MAX_SPOILED = 2

_DONE, _ONE, _ALL, _COUNT = CallState.DONE, Fetch.ONE, Fetch.ALL, Fetch.COUNT  # looked up once
_SHUTTING_DOWN = "the service is shutting down"


class Database:
    """Statements over at most `connections` connections, at least one each for reads and writes.

    `prepare=False` uses unnamed statements, one at a time a connection, for poolers without prepared statements:
    PgBouncer before 1.21 also takes a backend away between two pipelined statements when it has passed on only part of
    the second. The statements of `verify` are planned by PostgreSQL on the first connection, and then until all of them
    fit the schema: `mismatch` says which one does not, and why. `max_group` bounds the writes that share a commit.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        connections: int,
        prepare: bool = True,
        connect_timeout_s: float = 5,
        statement_timeout_s: float = 5,
        deadline_s: float = 10,
        max_queued: int = 1024,
        max_group: int = MAX_GROUP,
        verify: Sequence[Statement[Any]] = (),
    ) -> None:
        self.stats = Stats()
        self.max_connections = connections
        self._prepare = prepare
        self._statement_timeout_s = statement_timeout_s
        self._deadline_s = deadline_s
        self._max_queued = max_queued
        self._max_group = max_group
        self._schema = SchemaCheck(verify, self._execute_now)
        self._connector = PostgresConnector(
            conninfo,
            self,
            max_open=connections,
            prepare=prepare,
            connect_timeout_s=connect_timeout_s,
        )
        self._transformer = Transformer()  # without a connection: timestamptz loads as UTC
        self.rows = RowQueue(max_queued)

    async def open(self) -> None:
        """Begins to connect, and goes on trying in the background while the database is away."""
        self._loop = asyncio.get_running_loop()
        self.reads = self._pool(depth=64, max_group=1, grow_at=32)
        # Commits on one connection are serial: a second group on a lane would only wait for the first.
        self.writes = self._pool(depth=1, max_group=self._max_group, grow_at=0)
        pools = (self.reads, self.writes)
        self.connections = Connections(
            self._connector, pools, self.stats, max_open=self.max_connections, on_reachable=self._check_schema
        )
        self.watchdog = Watchdog(
            pools, self.rows, self.connections, self.stats, statement_timeout_s=self._statement_timeout_s
        )
        await self._connector.start()
        self.connections.housekeep()
        self.connections.grow(self.reads)

    async def close(self, grace_s: float = 5) -> None:
        """Takes nothing new, lets pending calls end within `grace_s`, and gives every connection back."""
        self.connections.closing = True
        end = self._loop.time() + grace_s
        # Looked at now and then, once in a process's life: an event would cost every call.
        while self.watchdog.pending and self._loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(SWEEP_S)
        self.watchdog.stop()
        await self.connections.stop(CANCEL_GRACE_S, _SHUTTING_DOWN)
        await self._connector.stop()

    def fetch_one(self, statement: Statement[Row], *values: object) -> "asyncio.Future[Row | None]":
        """The first row, or None. Raises Failure."""
        return self._run(statement, values, _ONE)

    def fetch_all(self, statement: Statement[Row], *values: object) -> "asyncio.Future[list[Row]]":
        """Every row, in order. Raises Failure."""
        return self._run(statement, values, _ALL)

    def execute(self, statement: Statement[Any], *values: object) -> "asyncio.Future[int]":
        """The number of rows changed. Raises Failure."""
        return self._run(statement, values, _COUNT)

    @property
    def in_flight(self) -> int:
        """Calls sent and not answered."""
        return self.reads.in_flight + self.writes.in_flight

    @property
    def queued(self) -> int:
        """Calls that wait for a lane, or for the write of the same row before them."""
        return self.reads.queued + self.writes.queued + len(self.rows)

    @property
    def lanes(self) -> int:
        """Connections in use."""
        return self.connections.lanes

    @property
    def reachable(self) -> bool:
        """Whether connections can be had, for reads and for writes, by what is already known."""
        return self.connections.reachable

    @property
    def read_only(self) -> bool:
        """Whether a setting of the role, the database or the server makes writes fail, by what is already known."""
        return any(lane.read_only for pool in (self.reads, self.writes) for lane in pool.lanes)

    @property
    def mismatch(self) -> str | None:
        """Which statement does not fit the schema or the role's privileges, and why; None: all fit."""
        return self._schema.mismatch

    # The way of a call -------------------------------------------------------------------------------------------

    def _run(self, statement: Statement[Any], arguments: tuple[object, ...], fetch: Fetch) -> "asyncio.Future[Any]":
        loop = self._loop
        now, future = loop.time(), loop.create_future()
        call = Call(statement, arguments, statement.encode(arguments), fetch, future, now, now + self._deadline_s)
        call.caller = current_caller.get()
        if self.connections.closing:
            call.fail(Unavailable(_SHUTTING_DOWN))
        else:
            self.watchdog.wake()
            if call.key is None or self.rows.enter(call.key, call):
                self._submit(call, now)
        return future

    def _submit(self, call: Call, now: float) -> None:
        """The call is sent in this turn of the event loop, or queued. For the first time, or again."""
        if not (self.writes if call.statement.writes else self.reads).submit(call, now):
            self._done(call)

    def _done(self, call: Call) -> None:
        """The call leaves, and the next for its row goes."""
        while True:
            if call.state is not _DONE:
                call.move(_DONE)
            if call.key is None or (following := self.rows.leave(call.key, call)) is None:
                return
            if (self.writes if following.statement.writes else self.reads).submit(following, self._loop.time()):
                return
            call = following

    def answered(self, lane: Lane, group: Group, results: list[pq.abc.PGresult]) -> None:
        stats, foreign = self.stats, None
        for call, result in zip(group.expected, results):  # noqa: B905 -- the lane has compared the lengths
            if not isinstance(call, Call):
                continue
            stats.count_call(call.statement.name, call.begun, group.sent, lane.head_since, call.caller)
            call.move(_DONE)
            if not call.future.done():
                foreign = self._hand_over(call, result) or foreign
            if call.key is not None:
                self._done(call)
        if group.calls[0].statement.writes:
            stats.count_group(len(group.calls))
        if foreign is not None:
            lane.lose(foreign)
        elif self.reads.queue:
            self.reads.dispatch()

    def _hand_over(self, call: Call, result: pq.abc.PGresult) -> str | None:
        """Gives the caller its rows. Returns what is wrong with the connection that they came on, if anything."""
        statement, fetch = call.statement, call.fetch
        if fetch is _COUNT:
            call.future.set_result(result.command_tuples or 0)
            return None
        transformer = self._transformer
        transformer.set_pgresult(result)
        try:
            if fetch is _ONE:
                rows = [statement.row_factory(*transformer.load_row(0, tuple))] if result.ntuples else []
            else:  # psycopg's own call of a row factory costs three times as much
                rows = list(starmap(statement.row_factory, transformer.load_rows(0, result.ntuples, tuple)))
        except psycopg.DataError as error:  # a value that Python's types cannot hold: a timestamp after year 9999
            call.future.set_exception(InternalError(f"{statement.name}: a row cannot be read: {error}"))
            return None
        except Exception as error:  # not even its columns are those of the statement
            reason = f"{statement.name}: PostgreSQL's reply is not one to this statement: {error}"
            call.future.set_exception(InternalError(reason))
            return reason
        owns = statement.owns
        if owns is not None and not owns(rows, call.arguments):
            reason = f"{statement.name}: PostgreSQL's reply holds a row that was not asked for"
            call.future.set_exception(InternalError(reason))
            return reason
        call.future.set_result(rows if fetch is _ALL else rows[0] if rows else None)
        return None

    def failed(self, lane: Lane, group: Group, error: ServerError, culprit: Call | None) -> None:
        cancelled_by_us = error.sqlstate == "57014" and lane.cancels > 0
        if cancelled_by_us:
            lane.cancels -= 1
        if error.sqlstate == "25006":
            lane.retires_at = 0.0  # a standby, or no longer the primary: the next connection may find the new one
        for call in reversed(group.calls):  # each that is sent again goes to the front of those that wait
            self.stats.count_call(call.statement.name, call.begun, group.sent, lane.head_since, call.caller)
            if call is not culprit:
                call.spoiled += 1
                # At the commit no single call is to blame; and no call is retried in groups without end.
                call.alone = call.alone or culprit is None or call.spoiled >= MAX_SPOILED
                self._retry(call)
                continue
            call.alone = call.alone or len(group.calls) > 1
            if cancelled_by_us and len(group.calls) > 1 and call.delay is Delay.NONE:
                call.delay = Delay.BLOCKED
            self._fail_or_retry(lane, call, error, cancelled_by_us)

    def _fail_or_retry(self, lane: Lane, call: Call, error: ServerError, cancelled_by_us: bool) -> None:
        was_current = True
        if error.needs_new_text or error.sqlstate.startswith("42"):  # in class 42, the preparing may have failed
            was_current = lane.forget(call, new_text=error.needs_new_text)
        retry = retry_of(error, cancelled_by_us=cancelled_by_us, delay=call.delay, was_current=was_current)
        if retry in (Retry.COUNTED, Retry.BACKOFF):
            call.tries += 1
        if retry is Retry.NO or call.tries >= MAX_ATTEMPTS or call.future.done():
            self.stats.failures[error.sqlstate[:2]] += 1
            failure = error.failure()
            call.fail(failure)
            if error.sqlstate in ("42501", "42P01", "42703"):
                self._schema.doubt(call.statement, failure)
            self._done(call)
        elif retry is Retry.BACKOFF:
            self.stats.retried += 1
            call.move(CallState.BACKING_OFF)
            (self.writes if call.statement.writes else self.reads).backing_off += 1
            self.connections.spawn(self._retry_later(call))
        else:
            self._retry(call)

    def _retry(self, call: Call) -> None:
        """Sends the call again, unless it has failed or its caller is gone. Whoever calls this knows that it changed
        nothing: a write that may have been done has failed already.
        """
        if call.future.done():
            self._done(call)
        else:
            self.stats.retried += 1
            self._submit_again(call)

    async def _retry_later(self, call: Call) -> None:
        await asyncio.sleep(random.uniform(*CONFLICT_DELAY_S))  # noqa: S311
        (self.writes if call.statement.writes else self.reads).backing_off -= 1
        if call.future.done():
            self._done(call)
        else:
            self._submit_again(call)

    def _submit_again(self, call: Call) -> None:
        call.begun = self._loop.time()  # its wait is counted from here: the attempt before has had its own
        self._submit(call, call.begun)

    def lost(self, lane: Lane, doubtful: list[Call], unsent: list[Call], reason: str, sqlstate: str | None) -> None:
        self.connections.lose(lane)
        self.stats.failures["lost" if sqlstate is None else sqlstate[:2]] += 1
        if not self.connections.closing:
            log.warning(
                "a connection to the database was lost: %s",
                reason.partition("\n")[0],
                extra={"sqlstate": sqlstate, "unanswered": len(doubtful) + len(unsent)},
            )
        timed_out = sqlstate is not None and error_class(sqlstate).failure is TimedOut
        for call in doubtful:
            if call.delay is Delay.OVERDUE:
                call.fail(TimedOut(reason, sqlstate))
            elif call.statement.writes:  # it may have been done, so it is not sent again
                call.fail(Unavailable(reason, sqlstate))
        for call in unsent:
            if timed_out and (call.alone or not call.statement.writes):
                call.fail(TimedOut(reason, sqlstate))
            call.alone = call.alone or timed_out
        for call in reversed((*doubtful, *unsent)):  # each goes to the front of those that wait
            call.tries += 1
            if call.tries >= MAX_ATTEMPTS:
                call.fail(Unavailable(reason, sqlstate))
            self._retry(call)

    def emptied(self) -> None:
        for pool in (self.reads, self.writes):
            if pool.queue or pool.blocked:
                pool.dispatch()

    def _pool(self, *, depth: int, max_group: int, grow_at: int) -> LanePool:
        return LanePool(
            depth=depth if self._prepare else 1,
            max_group=max_group if self._prepare else 1,
            grow_at=grow_at,
            max_queued=self._max_queued,
            max_lanes=self.max_connections - 1,
            grow=lambda pool: self.connections.grow(pool),
            discarded=self._done,
        )

    def _check_schema(self) -> None:
        if self._connector.begin_commit:
            self.writes.max_group = 1  # a transaction over several shards would need a two-phase commit
        if self._schema.pending:
            self.connections.spawn(self._schema.run())

    async def _execute_now(self, statement: Statement[Any], values: Sequence[object]) -> int:
        return await self.execute(statement, *values)
