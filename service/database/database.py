"""The only way to the database: three verbs, and the scheduling of calls over lanes.

Reads and writes have lanes of their own: a read waits for no row lock, so no read shall wait behind a statement that
does. What sits behind a statement on its lane waits for it, hence the rules of `_Group.pick` and `Database._sweep`.
Nothing here holds a transaction: each statement is one.

Knows calls, lanes, the pool and time limits. Must not know tasks or HTTP.
"""

import asyncio
import itertools
import logging
import random
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import generators, pq
from psycopg.adapt import Transformer
from psycopg_pool import AsyncNullConnectionPool

from service.database.failures import Failure, TimedOut, Unavailable, meaning
from service.database.lane import Call, Lane, sqlstate_of
from service.database.statement import Statement

Row = TypeVar("Row")

log = logging.getLogger("service.database")

# Seconds. A lane whose oldest statement is older than this gets nothing new while another can take it, and the reads
# behind that statement are sent again elsewhere: some tens of ms, well above a commit on Neon (1 to 5 ms).
STALE_S = 0.03
SWEEP_S = 0.01
# How long a cancelled statement may take to say so before the connection is taken for dead.
CANCEL_GRACE_S = 1.0
# While the database cannot be reached, calls wait this long for it (a suspended Neon compute wakes in less), and then
# fail at once until a connection succeeds.
PATIENCE_S = 3.0
RETRY_S = (0.05, 0.5)  # between attempts to connect, drawn evenly: many processes shall not knock in step
# A lane without work for so long gives its connection back, but for one of each kind.
IDLE_S = 60.0
# A lane older than this drains and gives its connection back, so that failovers and rebalancing are followed.
LIFETIME_S = (600.0, 900.0)
HOUSEKEEP_S = 5.0
MOST_TRIES = 4


class _Group:
    """The lanes of one kind, and the calls that wait for one."""

    __slots__ = ("depth", "grow_at", "lanes", "opening", "retiring", "waiting")

    def __init__(self, depth: int, grow_at: int) -> None:
        self.lanes: list[Lane] = []
        self.retiring: list[Lane] = []  # take nothing new
        self.waiting: deque[Call] = deque()
        self.opening = 0
        self.depth = depth  # the most calls under way on one lane
        self.grow_at = grow_at  # calls under way on the least loaded lane that ask for one lane more

    def pick(self, now: float) -> Lane | None:
        """The lane with the fewest calls under way, of those that are not full, stale or being cancelled."""
        best, least = None, self.depth
        for lane in self.lanes:
            load = len(lane.calls)
            if load == 0:
                return lane
            if load < least and now - lane.head_since < STALE_S and not lane.cancelling:
                best, least = lane, load
        return best

    def drop(self, lane: Lane) -> None:
        (self.lanes if lane in self.lanes else self.retiring).remove(lane)


class Stats:
    """What the database package counts, for metrics: plain numbers that only grow, but for the gauges' sources."""

    __slots__ = ("connects", "failures", "lost", "repeated", "rescued", "seconds", "statements", "unreachable")

    def __init__(self) -> None:
        self.connects = 0
        self.lost = 0
        self.unreachable = 0
        self.repeated = 0
        self.rescued = 0
        self.failures: Counter[str] = Counter()  # by SQLSTATE class, "lost" and "timeout"
        self.statements: Counter[str] = Counter()  # by statement name
        self.seconds: defaultdict[str, float] = defaultdict(float)  # by statement name, waiting included


class Database:
    """A scheduler of statements over at most `connections` connections, at least one each for reads and writes.

    `prepare=False` uses unnamed statements, one at a time a connection: poolers that know no prepared statements lose
    track of pipelined transactions too (PgBouncer before 1.21). The statements of `verify` are prepared on the first
    connection, and then until all of them fit the schema: `mismatch` says which one does not, and why.
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
        most_waiting: int = 1024,
        verify: Sequence[Statement[Any]] = (),
    ) -> None:
        self.stats = Stats()
        self.connections = connections
        self._prepare = prepare
        self._connect_timeout_s = connect_timeout_s
        self._statement_timeout_s = statement_timeout_s
        self._deadline_s = deadline_s
        self._most_waiting = most_waiting
        self._unverified = verify
        self.mismatch: str | None = None
        depth = 1 if not prepare else 10_000
        # Reads gain from depth; commits on one connection are serial, so writes spread sooner, and few are put at the
        # mercy of what is ahead of them.
        self._reads = _Group(depth=min(depth, 64), grow_at=32)
        self._writes = _Group(depth=min(depth, 16), grow_at=4)
        self._keys: dict[tuple[Any, ...], tuple[Lane, int]] = {}  # rows being written, where and by how many calls
        self._transformer = Transformer()  # without a connection: timestamptz loads as UTC
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None  # None while nothing is under way
        self._housekeeper: asyncio.TimerHandle | None = None
        self._down_since: float | None = None
        self._next_attempt = 0.0
        self._closing = False
        self._loop: asyncio.AbstractEventLoop
        self._pool: AsyncNullConnectionPool[psycopg.AsyncConnection[Any]] = AsyncNullConnectionPool(
            conninfo,
            # A lane keeps its connection for long, so the pool's part is to open, bound and close. A pool that kept
            # spare connections would also reconnect by itself, and so keep a suspended Neon compute awake.
            max_size=connections,
            open=False,
            kwargs={
                "autocommit": True,
                "prepare_threshold": None,  # lanes prepare their own
                "connect_timeout": max(2, round(connect_timeout_s)),  # libpq's least is 2 s; unset it waits 130 s
                "application_name": "tasks-service",
                # A peer that vanished without a word is noticed by the kernel too, not only by the statement limit.
                "keepalives_idle": 30,
                "keepalives_interval": 5,
                "keepalives_count": 3,
            },
        )

    async def open(self) -> None:
        """Begins to connect, and goes on trying in the background while the database is away."""
        self._loop = asyncio.get_running_loop()
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # what matters is logged here, once
        await self._pool.open()
        self._housekeep()
        self._grow(self._reads)

    async def close(self, grace_s: float = 5) -> None:
        """Takes nothing new, lets what is under way end within `grace_s`, and gives every connection back."""
        self._closing = True
        end = self._loop.time() + grace_s
        # Looked at now and then, once in a process's life: an event would cost every call.
        while self.under_way and self._loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(SWEEP_S)
        for timer in (self._sweeper, self._housekeeper):
            if timer is not None:
                timer.cancel()
        for group in (self._reads, self._writes):
            _fail_all(group, "the service is shutting down")
            for lane in (*group.lanes, *group.retiring):
                if lane.calls:
                    lane.lose("the service is shutting down")
                else:
                    self._give_back(group, lane)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._connect_timeout_s)
        await self._pool.close()

    async def one(self, statement: Statement[Row], *values: object) -> Row | None:
        """The first row, or None. Raises Failure."""
        result = await self._run(statement, values)
        transformer = self._transformer
        transformer.set_pgresult(result)
        return transformer.load_row(0, statement.make_row) if result.ntuples else None

    async def all(self, statement: Statement[Row], *values: object) -> list[Row]:
        """Every row, in order. Raises Failure."""
        result = await self._run(statement, values)
        transformer = self._transformer
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, statement.make_row)

    async def execute(self, statement: Statement[Any], *values: object) -> int:
        """The number of rows changed. Raises Failure."""
        result = await self._run(statement, values)
        return result.command_tuples or 0

    @property
    def under_way(self) -> int:
        """Calls sent or waiting."""
        groups = (self._reads, self._writes)
        return self.waiting + sum(len(lane.calls) for group in groups for lane in (*group.lanes, *group.retiring))

    @property
    def waiting(self) -> int:
        """Calls that wait for a lane."""
        return len(self._reads.waiting) + len(self._writes.waiting)

    @property
    def lanes(self) -> int:
        """Connections open."""
        return sum(len(group.lanes) + len(group.retiring) for group in (self._reads, self._writes))

    @property
    def reachable(self) -> bool:
        """Whether the last attempt to connect succeeded. True before the first."""
        return self._down_since is None

    # The way of a call ------------------------------------------------------------------------------------------

    def _run(self, statement: Statement[Any], values: tuple[object, ...]) -> "asyncio.Future[pq.abc.PGresult]":
        now = self._loop.time()
        encoded = statement.encode(values)
        key = tuple([encoded[position] for position in statement.key]) if statement.key else None
        call = Call(statement, encoded, self._loop.create_future(), now, now + self._deadline_s, key)
        self._place(call, now)
        return call.future

    def _place(self, call: Call, now: float) -> None:
        """Sends the call on the lane that suits it, or has it wait for one."""
        group = self._writes if call.statement.writes else self._reads
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        if call.key is not None:
            # Two writes of one row wait for each other in PostgreSQL anyway: on one lane they hold up only each other.
            held = self._keys.get(call.key)
            if held is not None:
                lane, count = held
                self._keys[call.key] = (lane, count + 1)
                lane.send(call)
                return
        lane = None if group.waiting else group.pick(now)
        if lane is None:
            self._wait(group, call, now)
            return
        if len(lane.calls) >= group.grow_at:
            self._grow(group)
        if call.key is not None:
            self._keys[call.key] = (lane, 1)
        lane.send(call)

    def _wait(self, group: _Group, call: Call, now: float) -> None:
        if self._closing:
            _fail(call, Unavailable("the service is shutting down"))
        elif self._down_since is not None and now - self._down_since > PATIENCE_S:
            _fail(call, Unavailable("the database cannot be reached"))
        elif len(group.waiting) >= self._most_waiting:
            _fail(call, Unavailable("too many calls wait for the database"))
        else:
            group.waiting.append(call)
        self._grow(group)

    def _serve_waiting(self, group: _Group, now: float) -> None:
        while group.waiting:
            lane = group.pick(now)
            if lane is None:
                self._grow(group)
                return
            call = group.waiting.popleft()
            if call.future.done():
                continue
            if call.key is not None:
                held = self._keys.get(call.key)
                if held is not None:
                    lane = held[0]
                self._keys[call.key] = (lane, 1 if held is None else held[1] + 1)
            lane.send(call)

    def _ended(self, lane: Lane, call: Call, result: pq.abc.PGresult | None, error: pq.abc.PGresult | None) -> None:
        if call.key is not None:
            self._unlock(call.key)
        future = call.future
        stats, name = self.stats, call.statement.name
        stats.statements[name] += 1
        stats.seconds[name] += lane.head_since - call.begun
        if error is not None:
            self._refused(lane, call, error)
        elif not future.done():
            future.set_result(result)  # pyright: ignore[reportArgumentType]
        group = self._writes if call.statement.writes else self._reads
        if group.waiting:
            self._serve_waiting(group, lane.head_since)

    def _refused(self, lane: Lane, call: Call, error: pq.abc.PGresult) -> None:
        """PostgreSQL answered with an error: the statement changed nothing."""
        sqlstate = sqlstate_of(error)
        self.stats.failures[(sqlstate or "lost")[:2]] += 1
        call.tries += 1
        again = meaning(sqlstate).repeat
        if sqlstate == "57014" and not call.overdue:
            again = True  # a cancel meant for the statement before it, which ended first
        elif sqlstate == "26000" or (sqlstate == "0A000" and b"cached plan" in error.error_message):
            # "prepared statement does not exist", "cached plan must not change result type": prepare again.
            lane.forget(call.statement)
            again = True
        if again and call.tries < MOST_TRIES and not call.future.done():
            self.stats.repeated += 1
            call.sent = False
            self._place(call, self._loop.time())
            return
        if sqlstate is not None and sqlstate.startswith("42"):
            lane.forget(call.statement)  # it may be the preparing that failed
        constraint = error.error_field(pq.DiagnosticField.CONSTRAINT_NAME)
        kind = meaning(sqlstate).failure
        _fail(call, kind(error.get_error_message().strip(), sqlstate, constraint.decode() if constraint else None))

    def _lost(self, lane: Lane, calls: list[Call], reason: str, sqlstate: str | None) -> None:
        """The connection is gone. A write that was sent may have happened, so only the others are sent again."""
        group = self._group(lane)
        group.drop(lane)
        self.stats.lost += 1
        self.stats.failures["lost" if sqlstate is None else sqlstate[:2]] += 1
        if not self._closing:
            log.warning(
                "a connection to the database was lost: %s",
                reason.partition("\n")[0],
                extra={"sqlstate": sqlstate, "unanswered": len(calls)},
            )
        self._spawn(self._discard(lane))
        now = self._loop.time()
        for call in calls:
            if call.key is not None:
                self._unlock(call.key)
            if call.future.done():
                continue
            call.tries += 1
            if call.overdue:
                _fail(call, TimedOut(reason, sqlstate))
            elif (call.sent and call.statement.writes) or call.tries >= MOST_TRIES:
                _fail(call, Unavailable(reason, sqlstate))
            else:
                self.stats.repeated += 1
                call.sent = False
                self._place(call, now)
        if group.waiting:
            self._grow(group)

    def _unlock(self, key: tuple[Any, ...]) -> None:
        lane, count = self._keys[key]
        if count == 1:
            del self._keys[key]
        else:
            self._keys[key] = (lane, count - 1)

    def _group(self, lane: Lane) -> _Group:
        return self._reads if lane in self._reads.lanes or lane in self._reads.retiring else self._writes

    # Connections ------------------------------------------------------------------------------------------------

    def _grow(self, group: _Group) -> None:
        """Opens one lane more, unless one is being opened or the bound is reached."""
        other = self._writes if group is self._reads else self._reads
        taken = self.lanes + group.opening + other.opening
        kept = 0 if other.lanes or other.opening else 1  # the other kind's first lane
        if not group.opening and not self._closing and taken + kept < self.connections:
            group.opening = 1
            self._spawn(self._open_lane(group))

    async def _open_lane(self, group: _Group) -> None:
        if (delay := self._next_attempt - self._loop.time()) > 0:
            await asyncio.sleep(delay)
        try:
            self.stats.connects += 1
            connection = await self._pool.getconn(timeout=self._connect_timeout_s)
            if self._unverified:
                await self._verify(connection)
        except (psycopg.Error, OSError) as error:
            group.opening = 0
            self._unreachable(error)
            self._grow(group)  # with nobody waiting too: a service that nobody asks would else never be ready again
            return
        group.opening = 0
        if self._down_since is not None:
            log.warning("the database is reachable again after %.1f s", self._loop.time() - self._down_since)
            self._down_since, self._next_attempt = None, 0.0
        lane = Lane(
            connection,
            prepare=self._prepare,
            lifetime_s=random.uniform(*LIFETIME_S),  # noqa: S311
            ended=self._ended,
            lost=self._lost,
        )
        group.lanes.append(lane)
        self._serve_waiting(group, self._loop.time())

    async def _verify(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Prepares each statement, and so finds out whether the schema is the one they were written for."""
        for statement in self._unverified:
            connection.pgconn.send_prepare(b"", statement.sql.encode())
            (result,) = await connection.wait(generators.execute(connection.pgconn))
            if result.status == pq.ExecStatus.FATAL_ERROR:
                reason = f"{statement.name}: {result.get_error_message().strip().partition(chr(10))[0]}"
                if reason != self.mismatch:
                    log.error("a statement does not fit the database's schema: %s", reason)
                self.mismatch = reason
                return
        self.mismatch, self._unverified = None, ()

    def _unreachable(self, error: Exception) -> None:
        now = self._loop.time()
        self.stats.unreachable += 1
        if self._down_since is None:
            self._down_since = now
            log.warning("the database cannot be reached: %s", str(error).strip().partition("\n")[0])
        down_s = now - self._down_since
        self._next_attempt = now + random.uniform(RETRY_S[0], min(RETRY_S[1], 0.1 + down_s / 10))  # noqa: S311
        if down_s > PATIENCE_S:
            for group in (self._reads, self._writes):
                if not group.lanes:
                    _fail_all(group, "the database cannot be reached")

    def _give_back(self, group: _Group, lane: Lane) -> None:
        group.drop(lane)
        lane.release()
        self._spawn(self._pool.putconn(lane.connection))

    async def _discard(self, lane: Lane) -> None:
        await lane.connection.close()
        await self._pool.putconn(lane.connection)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Time limits ------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Looks after what takes long. Runs every SWEEP_S while a call is under way, so that no call needs a timer."""
        now = self._loop.time()
        self._sweeper = None
        for group in (self._reads, self._writes):
            for lane in (*group.lanes, *group.retiring):
                if lane.calls and now - lane.head_since > STALE_S:
                    self._attend(group, lane, now)
            waiting = group.waiting
            while waiting and (waiting[0].future.done() or now > waiting[0].deadline):
                _fail(waiting.popleft(), Unavailable("no connection came free in time"))
            if waiting:
                self._serve_waiting(group, now)
        if self._sweeper is None and self.under_way:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _attend(self, group: _Group, lane: Lane, now: float) -> None:
        """A lane whose oldest statement takes long: first those behind it, then itself."""
        head, age = lane.calls[0], now - lane.head_since
        if not head.statement.writes:
            for call in itertools.islice(lane.calls, 1, None):
                if call.rescued or call.future.done():
                    continue
                other = group.pick(now)
                if other is None:
                    self._grow(group)
                    break
                call.rescued = True
                self.stats.rescued += 1
                other.send(call)
        for call in lane.calls:
            if now > call.deadline and not call.future.done():
                _fail(call, TimedOut("the request's deadline passed"))
        if age > self._statement_timeout_s + CANCEL_GRACE_S:
            head.overdue = True
            lane.lose("PostgreSQL did not answer within the statement limit")
        elif age > self._statement_timeout_s and not lane.cancelling:
            head.overdue = lane.cancelling = True
            self._spawn(self._cancel(lane))

    async def _cancel(self, lane: Lane) -> None:
        # A cancel request holds through a transaction-mode pooler, which a SET does not. It may arrive when its
        # statement has just ended and hit the next one; that one is sent again (see _refused).
        try:
            await lane.connection.cancel_safe(timeout=CANCEL_GRACE_S)
        except (psycopg.Error, OSError) as error:
            log.warning("a statement over its limit could not be cancelled: %s", str(error).partition("\n")[0])
        finally:
            lane.cancelling = False

    def _housekeep(self) -> None:
        """Gives back what is idle or old."""
        now = self._loop.time()
        if self.mismatch is not None:
            self._grow(self._reads)  # a new connection looks again
        for group in (self._reads, self._writes):
            for lane in tuple(group.lanes):
                if now > lane.retires_at:
                    group.lanes.remove(lane)
                    group.retiring.append(lane)
                elif not lane.calls and now - lane.idle_since > IDLE_S and len(group.lanes) > 1:
                    self._give_back(group, lane)
            for lane in tuple(group.retiring):
                if not lane.calls:
                    self._give_back(group, lane)
        self._housekeeper = self._loop.call_later(HOUSEKEEP_S, self._housekeep)


def _fail(call: Call, failure: Failure) -> None:
    if not call.future.done():
        call.future.set_exception(failure)


def _fail_all(group: _Group, reason: str) -> None:
    while group.waiting:
        _fail(group.waiting.popleft(), Unavailable(reason))
