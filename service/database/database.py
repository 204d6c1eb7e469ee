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
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg_pool import AsyncNullConnectionPool

from service.database.failures import Failure, TimedOut, Unavailable, error_class
from service.database.lane import Call, Lane, sqlstate_of
from service.database.statement import Statement, Value

Row = TypeVar("Row")

log = logging.getLogger("service.database")

# Seconds. A lane whose oldest statement is older than this gets nothing new while another can take it, and those behind
# that statement are helped past it: some tens of ms, well above a commit on Neon (1 to 5 ms).
STALE_S = 0.03
SWEEP_S = 0.01
# How long a cancelled statement may take to say so before the connection is taken for dead.
CANCEL_GRACE_S = 1.0
# A statement that others or nobody waits for is cancelled when it takes longer than this: well above what a slow disk
# makes of a commit, because a cancel costs PostgreSQL a process.
STUCK_S = 0.1
# While the database cannot be reached, calls wait this long for it (a suspended Neon compute wakes in less), and then
# fail at once until a connection succeeds.
PATIENCE_S = 3.0
RETRY_S = (0.05, 0.5)  # between attempts to connect, drawn evenly: many processes shall not knock in step
# A lane without work for so long gives its connection back, but for one of each kind.
IDLE_S = 60.0
# A lane older than this drains and gives its connection back, so that failovers and rebalancing are followed.
LIFETIME_S = (600.0, 900.0)
HOUSEKEEP_S = 5.0
MAX_ATTEMPTS = 4
# Who gave way in a conflict comes back after so long, drawn evenly: at once, one in four took its rows again before the
# other had woken, and the two met as before.
CONFLICT_DELAY_S = (0.01, 0.05)


class _Group:
    """The lanes of one kind, the calls that wait for one, and what is known of getting more."""

    __slots__ = (
        "complaint",
        "depth",
        "down_since",
        "grow_at",
        "lanes",
        "next_attempt",
        "opening",
        "retiring",
        "waiting",
    )

    def __init__(self, depth: int, grow_at: int) -> None:
        self.lanes: list[Lane] = []
        self.retiring: list[Lane] = []  # take nothing new
        self.waiting: deque[Call] = deque()
        self.depth = depth  # the most calls under way on one lane
        self.grow_at = grow_at  # calls under way on the least loaded lane that ask for one lane more
        self.opening: asyncio.Task[None] | None = None
        self.down_since: float | None = None  # since when there has been no lane, in spite of attempts
        self.next_attempt = 0.0
        self.complaint: str | None = None  # why the last attempt failed, as it was logged

    def pick(self, now: float) -> Lane | None:
        """The lane with the fewest calls under way, of those that are not full, stale or exclusive."""
        best, least = None, self.depth
        for lane in self.lanes:
            load = len(lane.calls)
            if load == 0:
                return lane
            if load < least and now - lane.head_since < STALE_S and not lane.exclusive:
                best, least = lane, load
        return best

    def drop(self, lane: Lane) -> None:
        (self.lanes if lane in self.lanes else self.retiring).remove(lane)

    def retire(self, now: float) -> None:
        """The lanes that have had their time take nothing new."""
        for lane in [lane for lane in self.lanes if now > lane.retires_at]:
            self.lanes.remove(lane)
            self.retiring.append(lane)


class Stats:
    """What the database package counts, for metrics: plain numbers that only grow, but for the gauges' sources."""

    __slots__ = ("connects", "failures", "hedged", "lost", "retried", "seconds", "statements", "unreachable")

    def __init__(self) -> None:
        self.connects = 0
        self.lost = 0
        self.unreachable = 0
        self.retried = 0
        self.hedged = 0
        self.failures: Counter[str] = Counter()  # by SQLSTATE class; "lost": a connection's end without one
        self.statements: Counter[str] = Counter()  # by statement name
        self.seconds: defaultdict[str, float] = defaultdict(float)  # by statement name, waiting included


class Database:
    """A scheduler of statements over at most `connections` connections, at least one each for reads and writes.

    `prepare=False` uses unnamed statements, one at a time a connection, for poolers that know no prepared ones:
    PgBouncer before 1.21 also takes a backend away between two pipelined statements when it has passed on only part of
    the second. The statements of `verify` are planned by PostgreSQL on the first connection, and then until all of them
    fit the schema: `mismatch` says which one does not, and why.
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
        verify: Sequence[Statement[Any]] = (),
    ) -> None:
        self.stats = Stats()
        self.connections = connections
        self._prepare = prepare
        self._connect_timeout_s = connect_timeout_s
        self._statement_timeout_s = statement_timeout_s
        self._deadline_s = deadline_s
        self._most_waiting = max_queued
        self._unverified = [statement.explained() for statement in verify]
        self.mismatch: str | None = "no statement was compared with the schema yet" if verify else None
        # Reads gain from depth; commits on one connection are serial, so writes spread sooner, and few are put at the
        # mercy of what is ahead of them.
        self._reads = _Group(depth=64 if prepare else 1, grow_at=32)
        self._writes = _Group(depth=16 if prepare else 1, grow_at=4)
        self._groups = (self._reads, self._writes)
        self._open = 0  # connections, those being opened or closed included
        # Those that wait for a row, by each row that a call holds. Two writes of one row wait for each other in
        # PostgreSQL anyway; waiting here, they hold up nobody else, and are not sent when they come to nothing.
        self._keys: dict[tuple[Value, ...] | None, deque[Call]] = {}
        self._transformer = Transformer()  # without a connection: timestamptz loads as UTC
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None  # None while nothing is under way
        self._housekeeper: asyncio.TimerHandle | None = None
        self._connected = False  # ever
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
        for group in self._groups:
            if group.opening is not None:
                group.opening.cancel()
            for lane in (*group.lanes, *group.retiring):
                if lane.calls:
                    lane.lose("the service is shutting down")
                else:
                    self._give_back(group, lane)
            self._fail_all(group, "the service is shutting down")
        while self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CANCEL_GRACE_S)
            for task in late:
                task.cancel()
        await self._pool.close()

    async def fetch_one(self, statement: Statement[Row], *values: object) -> Row | None:
        """The first row, or None. Raises Failure."""
        result = await self._run(statement, values)
        transformer = self._transformer
        transformer.set_pgresult(result)
        return transformer.load_row(0, statement.row_factory) if result.ntuples else None

    async def fetch_all(self, statement: Statement[Row], *values: object) -> list[Row]:
        """Every row, in order. Raises Failure."""
        result = await self._run(statement, values)
        transformer = self._transformer
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, statement.row_factory)

    async def execute(self, statement: Statement[Any], *values: object) -> int:
        """The number of rows changed. Raises Failure."""
        result = await self._run(statement, values)
        return result.command_tuples or 0

    @property
    def under_way(self) -> int:
        """Calls sent or waiting."""
        return self.waiting + sum(len(lane.calls) for group in self._groups for lane in (*group.lanes, *group.retiring))

    @property
    def waiting(self) -> int:
        """Calls that wait for a lane, or for the write of the same row before them."""
        return len(self._reads.waiting) + len(self._writes.waiting) + sum(map(len, self._keys.values()))

    @property
    def lanes(self) -> int:
        """Connections in use."""
        return sum(len(group.lanes) + len(group.retiring) for group in self._groups)

    @property
    def reachable(self) -> bool:
        """Whether connections can be had, for reads and for writes, by what is already known."""
        return self._connected and self._reads.down_since is None and self._writes.down_since is None

    # The way of a call ------------------------------------------------------------------------------------------

    def _run(self, statement: Statement[Any], values: tuple[object, ...]) -> "asyncio.Future[pq.abc.PGresult]":
        now = self._loop.time()
        encoded = statement.encode(values)
        key = tuple([encoded[position] for position in statement.key]) if statement.key else None
        call = Call(statement, encoded, self._loop.create_future(), now, now + self._deadline_s, key)
        self._place(call, now)
        return call.future

    def _place(self, call: Call, now: float) -> None:
        """Sends the call, or has it wait: for its row, or for a lane."""
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        if call.key is None or call.holds:
            self._send(call, now)
        elif (queue := self._keys.get(call.key)) is None:
            self._send(call, now)
            self._hold(call)
        elif len(queue) < self._most_waiting:
            queue.append(call)
        else:
            _fail(call, Unavailable("too many calls wait for the same row"))

    def _hold(self, call: Call) -> bool:
        """Has those with the same key wait until the call has ended; false where it has, or where they need not."""
        call.holds = not call.future.done() and (call.moved or not call.statement.shared)
        if call.holds:
            self._keys.setdefault(call.key, deque())
        return call.holds

    def _release(self, call: Call, now: float, go: Callable[[Call, float], None]) -> None:
        """Where the call has left, the next for its row goes."""
        if not call.holds or not call.future.done():
            return
        call.holds = False
        queue = self._keys[call.key]
        while queue:
            following = queue.popleft()
            if not following.future.done():
                go(following, now)
                if self._hold(following):
                    return
        del self._keys[call.key]

    def _send(self, call: Call, now: float) -> None:
        """Sends the call on the lane that suits it, or has it wait for one."""
        group = self._writes if call.statement.writes else self._reads
        lane = None if group.waiting else group.pick(now)
        if lane is None:
            self._wait(call, now)
            return
        if len(lane.calls) >= group.grow_at:
            self._grow(group)
        lane.exclusive = lane.exclusive or call.moved
        lane.send(call)

    def _wait(self, call: Call, now: float) -> None:
        group = self._writes if call.statement.writes else self._reads
        if self._closing and not (call.tries and group.lanes):
            _fail(call, Unavailable("the service is shutting down"))
        elif group.down_since is not None and now - group.down_since > PATIENCE_S:
            _fail(call, Unavailable("the database cannot be reached"))
        elif len(group.waiting) >= self._most_waiting:
            _fail(call, Unavailable("too many calls wait for the database"))
        elif call.tries:
            group.waiting.appendleft(call)  # it has waited before
        else:
            group.waiting.append(call)
        self._grow(group)

    def _serve_waiting(self, group: _Group, now: float) -> None:
        waiting = group.waiting
        while waiting and (lane := group.pick(now)) is not None:
            call = waiting.popleft()
            if not call.future.done():
                lane.exclusive = lane.exclusive or call.moved
                lane.send(call)
            else:
                self._release(call, now, self._send)
        if waiting:
            self._grow(group)

    def _ended(self, lane: Lane, call: Call, result: pq.abc.PGresult | None, error: pq.abc.PGresult | None) -> None:
        stats, name = self.stats, call.statement.name
        stats.statements[name] += 1
        stats.seconds[name] += lane.head_since - call.begun
        if error is not None:
            self._refused(lane, call, error)
        elif not call.future.done():
            call.future.set_result(result)  # pyright: ignore[reportArgumentType]
        if call.holds:
            self._release(call, lane.head_since, self._send)
        group = self._writes if call.statement.writes else self._reads
        if group.waiting:
            self._serve_waiting(group, lane.head_since)

    def _refused(self, lane: Lane, call: Call, error: pq.abc.PGresult) -> None:
        """PostgreSQL answered with an error: the statement changed nothing."""
        sqlstate = sqlstate_of(error) or ""
        again = error_class(sqlstate).repeat
        if sqlstate == "57014":
            # Repeated where the cancel was to let others pass, or was meant for the statement before and came late.
            # What others cancel (a role's statement_timeout, an administrator) stays cancelled.
            again = lane.cancels > 0 and not call.overdue
            lane.cancels = max(lane.cancels - 1, 0)
        elif sqlstate == "26000" or (sqlstate == "0A000" and b"cached plan" in error.error_message):
            # "prepared statement does not exist", "cached plan must not change result type": prepare again.
            lane.forget(call)
            again = True
        elif sqlstate.startswith("42"):
            lane.forget(call)  # it may be the preparing that failed
        elif sqlstate == "25006":
            lane.retires_at = 0.0  # a standby, or no longer the primary: the next connection may find the new one
        call.tries += 1
        if again and call.tries < MAX_ATTEMPTS and not call.future.done():
            self.stats.retried += 1
            call.sent = False
            if error_class(sqlstate).repeat:
                self._spawn(self._place_later(call))
            else:
                self._place(call, lane.head_since)
            return
        self.stats.failures[sqlstate[:2]] += 1
        constraint = error.error_field(pq.DiagnosticField.CONSTRAINT_NAME)
        kind = error_class(sqlstate).failure
        _fail(call, kind(error.get_error_message().strip(), sqlstate, constraint.decode() if constraint else None))

    async def _place_later(self, call: Call) -> None:
        await asyncio.sleep(random.uniform(*CONFLICT_DELAY_S))  # noqa: S311
        now = self._loop.time()
        if not call.future.done():
            self._place(call, now)
        self._release(call, now, self._send)

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
        for call in reversed(calls):  # each goes to the front of those that wait
            call.tries += 1
            if call.overdue:
                _fail(call, TimedOut(reason, sqlstate))
            elif (call.sent and call.statement.writes) or call.tries >= MAX_ATTEMPTS:
                _fail(call, Unavailable(reason, sqlstate))
            elif not call.future.done():
                # Not sent at once: the other connections are likely broken too, and say so in a moment.
                self.stats.retried += 1
                call.sent = False
                self._wait(call, now)
            self._release(call, now, self._wait)

    def _other(self, group: _Group) -> _Group:
        return self._writes if group is self._reads else self._reads

    def _group(self, lane: Lane) -> _Group:
        return self._reads if lane in self._reads.lanes or lane in self._reads.retiring else self._writes

    # Connections ------------------------------------------------------------------------------------------------

    def _grow(self, group: _Group) -> None:
        """Begins to open one lane more, unless one is being opened; at the bound, takes over one that idles."""
        if group.opening is not None or self._closing:
            return
        other = self._other(group)
        kept = 0 if other.lanes or other.opening else 1  # the other kind's first lane
        if self._open + kept < self.connections:
            self._open += 1
            group.opening = self._spawn(self._open_lane(group))
        elif len(other.lanes) > 1:
            for lane in other.lanes:
                if not lane.calls:
                    other.lanes.remove(lane)
                    group.lanes.append(lane)
                    group.down_since = None
                    break

    async def _open_lane(self, group: _Group) -> None:
        connection = None
        try:
            await asyncio.sleep(group.next_attempt - self._loop.time())
            self.stats.connects += 1
            connection = await self._pool.getconn(timeout=self._connect_timeout_s)
        except (psycopg.Error, OSError) as error:
            self._unreachable(group, str(error).strip().partition("\n")[0])
        finally:
            group.opening = None
            if connection is None:
                self._open -= 1
        if connection is None:
            if not group.lanes:
                self._grow(group)  # with nobody waiting too: a service that nobody asks would else never be ready again
            return
        now = self._loop.time()
        if group.complaint is not None:
            log.warning("the database is reachable again")
        self._connected, group.complaint, group.down_since = True, None, None
        lane = Lane(
            connection,
            prepare=self._prepare,
            lifetime_s=random.uniform(*LIFETIME_S),  # noqa: S311
            ended=self._ended,
            lost=self._lost,
        )
        group.retire(now)
        group.lanes.append(lane)
        if self._unverified:
            self._spawn(self._verify())
        self._serve_waiting(group, now)

    def _unreachable(self, group: _Group, reason: str) -> None:
        self.stats.unreachable += 1
        now = self._loop.time()
        if reason != group.complaint:
            group.complaint = reason
            log.warning("the database cannot be reached: %s", reason)
        if not group.lanes:
            group.down_since = group.down_since or now
            # PostgreSQL may allow fewer connections than the bound, and the other kind have them all.
            other = self._other(group)
            if len(other.lanes) > 1 and not other.retiring:
                other.retiring.append(other.lanes.pop())
                self._empty_retired(other)
        down_s = 0.0 if group.down_since is None else now - group.down_since
        group.next_attempt = now + random.uniform(RETRY_S[0], min(RETRY_S[1], 0.1 + down_s / 10))  # noqa: S311
        if down_s > PATIENCE_S:
            self._fail_all(group, "the database cannot be reached")

    def _fail_all(self, group: _Group, reason: str) -> None:
        while group.waiting:
            call = group.waiting.popleft()
            _fail(call, Unavailable(reason))
            self._release(call, self._loop.time(), self._wait)

    async def _verify(self) -> None:
        """Has PostgreSQL plan each statement, and so finds out whether the schema is the one they were written for."""
        for statement in self._unverified:
            try:
                await self.execute(statement, *[None] * len(statement.parameters))
            except Failure as error:
                if error.sqlstate is not None and error.sqlstate.startswith("42"):
                    name = statement.name.removeprefix("explain_")
                    reason = f"{name}: {str(error).partition(chr(10))[0]}"
                    if reason != self.mismatch:
                        log.error("a statement does not fit the database's schema: %s", reason)
                    self.mismatch = reason
                return
        self.mismatch, self._unverified = None, []

    def _empty_retired(self, group: _Group) -> None:
        """Gives the retired lanes that are empty by now back, or to the other kind where that can get none."""
        other = self._other(group)
        for lane in [lane for lane in group.retiring if not lane.calls]:
            if other.lanes or other.down_since is None:
                self._give_back(group, lane)
            else:
                group.retiring.remove(lane)
                other.lanes.append(lane)
                other.down_since = None
                self._serve_waiting(other, self._loop.time())

    def _give_back(self, group: _Group, lane: Lane) -> None:
        group.drop(lane)
        lane.close()
        self._spawn(self._discard(lane))

    async def _discard(self, lane: Lane) -> None:
        await lane.connection.close()
        self._open -= 1
        await self._pool.putconn(lane.connection)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Time limits ------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Looks after what takes long. Runs every SWEEP_S while a call is under way, so that no call needs a timer."""
        now = self._loop.time()
        self._sweeper = None
        for group in self._groups:
            self._empty_retired(group)
            for lane in (*group.lanes, *group.retiring):
                if not lane.calls:
                    continue
                if now - lane.head_since > STALE_S:
                    lane.read()  # it may be this process that is late, not PostgreSQL
                    if lane.calls and now - lane.head_since > STALE_S:
                        self._attend(group, lane, now)
                if lane.calls and now > lane.calls[0].deadline:
                    for call in lane.calls:
                        if now > call.deadline:
                            _fail(call, TimedOut("the request's deadline passed"))
            waiting = group.waiting
            while waiting and (waiting[0].future.done() or now > waiting[0].deadline):
                call = waiting.popleft()
                _fail(call, Unavailable("no connection came free in time"))
                self._release(call, now, self._wait)
            if waiting:
                self._serve_waiting(group, now)
        for queue in self._keys.values():
            while queue and (queue[0].future.done() or now > queue[0].deadline):
                _fail(queue.popleft(), TimedOut("the writes of the same row before it did not end in time"))
        if self._sweeper is None and self.under_way:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _attend(self, group: _Group, lane: Lane, now: float) -> None:
        """A lane whose oldest statement takes long: first those behind it, then itself."""
        head, age = lane.calls[0], now - lane.head_since
        behind = [call for call in itertools.islice(lane.calls, 1, None) if not call.future.done()]
        if not head.statement.writes:
            self._hedge(group, behind, now)
        elif age > STUCK_S and behind and not (head.moved or head.overdue):
            # Those behind were sent and so cannot be sent again. Cancelled, the head has changed nothing, and goes to
            # the end of a lane on which nobody is put behind it.
            head.moved = True
            self._cancel(lane)
        limit = min(self._statement_timeout_s, STUCK_S) if head.future.done() else self._statement_timeout_s
        if age > self._statement_timeout_s + CANCEL_GRACE_S:
            head.overdue = True
            lane.lose("PostgreSQL did not answer within the statement limit")
        elif age > limit and not head.overdue:
            head.overdue = True
            self._cancel(lane)

    def _hedge(self, group: _Group, reads: list[Call], now: float) -> None:
        """Sends reads a second time on a lane that idles: whichever answer comes first is taken.

        Where none idles, all are busy: reads sent twice would then be load on load.
        """
        reads = [call for call in reads if not call.hedged]
        lane = group.pick(now) if reads else None
        if lane is not None and not lane.calls:
            for call in reads[: group.depth]:
                call.hedged = True
                twin = Call(call.statement, call.values, call.future, call.begun, call.deadline, None)
                twin.hedged = True
                self.stats.hedged += 1
                lane.send(twin)
        elif reads:
            self._grow(group)

    def _cancel(self, lane: Lane) -> None:
        lane.cancels += 1
        lane.exclusive = True
        self._spawn(self._send_cancel(lane))

    async def _send_cancel(self, lane: Lane) -> None:
        # A cancel request holds through a transaction-mode pooler, which a SET does not. It may arrive when its
        # statement has just ended and hit the next one; that one is sent again (see _refused).
        try:
            await lane.connection.cancel_safe(timeout=CANCEL_GRACE_S)
        except (psycopg.Error, OSError) as error:
            log.warning("a statement could not be cancelled: %s", str(error).partition("\n")[0])

    def _housekeep(self) -> None:
        """Gives back what is idle or old."""
        now = self._loop.time()
        for group in self._groups:
            for lane in tuple(group.lanes):
                idle_s = 0.0 if lane.calls else now - lane.idle_since
                if idle_s > IDLE_S and len(group.lanes) > 1:
                    self._give_back(group, lane)
                elif now > lane.retires_at and idle_s < HOUSEKEEP_S:
                    self._grow(group)  # in use: its successor comes first, where there is room for one
            if group.opening is None:
                group.retire(now)
            self._empty_retired(group)
        if self._unverified and self.reachable:
            self._spawn(self._verify())
        self._housekeeper = self._loop.call_later(HOUSEKEEP_S, self._housekeep)


def _fail(call: Call, failure: Failure) -> None:
    if not call.future.done():
        call.future.set_exception(failure)
