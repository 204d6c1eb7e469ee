"""Which call goes on which lane, when, and with which others; how connections come and go. No PostgreSQL: lanes only
note what they are sent.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import pytest

from service.database import Statement, TimedOut, Unavailable, connections, lane_pool
from service.database.call import Call, CallState, Fetch
from service.database.connections import Connections
from service.database.failures import Delay
from service.database.lane import Group, Lane, LaneState, Output
from service.database.lane_pool import LanePool
from service.database.row_queue import RowQueue
from service.database.stats import Stats
from service.database.watchdog import Watchdog

READ: Statement[Any] = Statement("read", "-- Reads.\nSELECT %(id)s", {"id": int}, tuple)
WRITE: Statement[Any] = Statement(
    "write", "-- Writes.\nUPDATE t SET n = 1 WHERE id = %(id)s", {"id": str}, tuple, key=("id",)
)
ALONE: Statement[Any] = Statement("alone", "-- Writes.\nINSERT INTO t VALUES (%(id)s)", {"id": str}, tuple)


class NotedLane:
    """What the pools see of a lane. `sent` holds the groups; `end` answers the first."""

    def __init__(self) -> None:
        self.groups: deque[Group] = deque()
        self.sent: list[list[object]] = []
        self.state = LaneState.OPEN
        self.output = Output.EMPTY
        self.head_since = self.idle_since = asyncio.get_running_loop().time()
        self.retires_at = self.head_since + 1000
        self.flushed = 0

    @property
    def in_flight(self) -> int:
        return sum(len(group.calls) for group in self.groups)

    @property
    def idle(self) -> bool:
        return not self.groups

    def move(self, state: LaneState) -> None:
        self.state = state

    def send(self, calls: Sequence[Call], now: float) -> None:
        self.head_since = now
        self.groups.append(Group(calls, now))
        self.sent.append([call.arguments[0] for call in calls])
        self.output = Output.UNFLUSHED
        for call in calls:
            call.move(CallState.IN_FLIGHT)

    def flush(self) -> None:
        self.flushed += 1
        self.output = Output.EMPTY

    def end(self) -> None:
        for call in self.groups.popleft().calls:
            call.move(CallState.DONE)

    def close(self) -> None:
        self.state = LaneState.CLOSED

    def lose(self, reason: str) -> None:
        self.close()


class Place:
    """A pool with lanes, and what it asked for."""

    def __init__(self, lanes: int, **options: Any) -> None:
        self.grown = 0
        self.discarded: list[Call] = []
        defaults = {"depth": 1, "max_group": 4, "grow_at": 0, "max_queued": 100, "max_lanes": 8}
        self.pool = LanePool(grow=self._grow, discarded=self.discarded.append, **(defaults | options))
        self.lanes = [NotedLane() for _ in range(lanes)]
        self.pool.lanes = cast("list[Lane]", self.lanes.copy())

    def _grow(self, pool: LanePool) -> None:
        self.grown += 1

    def submit(self, statement: Statement[Any], argument: object, deadline: float = 1e9) -> Call:
        loop = asyncio.get_running_loop()
        arguments = (argument,)
        one = Call(statement, arguments, statement.encode(arguments), Fetch.ONE, loop.create_future(), 0, deadline)
        self.pool.submit(one, loop.time())
        return one


async def turn() -> None:
    """The end of this turn of the event loop."""
    await asyncio.sleep(0)


async def test_writes_of_one_turn_go_as_one_group_in_lock_order() -> None:
    place = Place(2)
    for name in ("c", "a", "b"):
        place.submit(WRITE, name)
    assert place.lanes[0].sent == []
    await turn()
    assert place.lanes[0].sent == [["a", "b", "c"]]
    assert place.lanes[0].flushed == 1
    assert place.lanes[1].sent == []


async def test_a_group_is_bounded_and_the_rest_takes_the_next_lane() -> None:
    place = Place(2)
    for n in range(6):
        place.submit(WRITE, f"{n}")
    await turn()
    assert [lane.sent for lane in place.lanes] == [[["0", "1", "2", "3"]], [["4", "5"]]]


async def test_what_comes_while_the_lanes_are_busy_waits_and_goes_together() -> None:
    place = Place(3)
    for name in ("a", "b"):
        place.submit(WRITE, name)
        await turn()
    for name in ("d", "c"):  # two lanes are busy: the third is for full groups
        place.submit(WRITE, name)
        await turn()
    assert [lane.sent for lane in place.lanes] == [[["a"]], [["b"]], []]
    place.lanes[0].end()
    place.pool.dispatch()
    assert place.lanes[0].sent == [["a"], ["c", "d"]]
    assert place.grown == 0


async def test_full_groups_take_more_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_pool, "FULL_GROUP", 4)
    place = Place(3)
    for name in ("a", "b"):
        place.submit(WRITE, name)
        await turn()
    for n in range(4):
        place.submit(WRITE, f"{n}")
    await turn()
    assert place.lanes[2].sent == [["0", "1", "2", "3"]]
    for n in range(4):
        place.submit(WRITE, f"{n}")
    await turn()
    assert place.grown


async def test_a_statement_that_goes_alone_has_a_group_of_its_own() -> None:
    place = Place(8)
    for statement, name in ((WRITE, "a"), (ALONE, "b"), (WRITE, "c"), (WRITE, "d")):
        place.submit(statement, name)
    await turn()
    assert [lane.sent for lane in place.lanes] == [[["a"]], [["b"]], *[[]] * 6]
    place.lanes[0].end()
    place.pool.dispatch()
    assert place.lanes[0].sent == [["a"], ["c", "d"]]


async def test_stale_lanes_do_not_count_and_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(3)
    for name in ("a", "b"):
        place.submit(WRITE, name)
        await turn()
    for lane in place.lanes[:2]:
        lane.head_since -= 1
    place.submit(WRITE, "c")
    await turn()
    assert place.lanes[2].sent == [["c"]]


async def test_reads_go_on_the_lane_with_the_fewest_and_at_once() -> None:
    place = Place(2, depth=3, max_group=1, grow_at=2)
    calls = [place.submit(READ, n) for n in range(6)]
    assert [len(lane.sent) for lane in place.lanes] == [3, 3]
    assert place.grown
    assert not place.pool.queued
    waiting = place.submit(READ, 6)
    assert waiting.state is CallState.QUEUED
    place.lanes[1].end()
    place.pool.dispatch()
    assert place.lanes[1].sent[-1] == [6]
    assert all(call.state is not CallState.QUEUED for call in calls)


@pytest.mark.parametrize("state", [LaneState.CANCELLING, LaneState.RETIRING, LaneState.CLOSED])
async def test_a_lane_that_is_not_open_takes_nothing(state: LaneState) -> None:
    place = Place(1)
    place.lanes[0].state = state
    place.submit(WRITE, "a")
    await turn()
    assert place.lanes[0].sent == []
    assert place.grown == 1


async def test_blocked_writes_take_half_of_the_lanes() -> None:
    place = Place(4, max_lanes=4)
    blocked = [place.submit(ALONE, f"{n}") for n in range(4)]
    place.pool.queue.clear()
    for call in blocked:
        call.delay = Delay.BLOCKED
        place.pool.blocked.append(call)
    place.pool.dispatch()
    assert sum(len(lane.sent) for lane in place.lanes) == 2
    assert not place.pool.may_block
    for lane in place.lanes:
        lane.head_since -= 1
    place.submit(WRITE, "free")
    await turn()
    assert [["free"]] in [lane.sent for lane in place.lanes]
    assert place.pool.queued == 2


async def test_the_queue_is_bounded() -> None:
    place = Place(0, max_queued=2)
    calls = [place.submit(WRITE, f"{n}") for n in range(3)]
    with pytest.raises(Unavailable, match="too many calls"):
        await calls[2].future
    assert place.pool.queued == 2


async def test_a_queued_call_past_its_deadline_fails_and_leaves() -> None:
    place = Place(0)
    late, patient = place.submit(WRITE, "a", deadline=1), place.submit(WRITE, "b")
    place.pool.expire(now=2)
    with pytest.raises(Unavailable, match="in time"):
        await late.future
    assert place.discarded == [late]
    assert patient.state is CallState.QUEUED


async def test_whose_caller_is_gone_is_not_sent() -> None:
    place = Place(1)
    calls = [place.submit(WRITE, name) for name in ("a", "b", "c")]
    calls[1].future.cancel()
    await turn()
    assert place.lanes[0].sent == [["a", "c"]]
    assert place.discarded == [calls[1]]


async def test_while_the_database_is_away_for_long_calls_fail_at_once() -> None:
    place = Place(0)
    waiting = place.submit(WRITE, "a")
    place.pool.down_since = asyncio.get_running_loop().time() - lane_pool.MAX_DOWN_S - 1
    with pytest.raises(Unavailable, match="cannot be reached"):
        await place.submit(WRITE, "b").future
    place.pool.give_up(asyncio.get_running_loop().time())
    with pytest.raises(Unavailable, match="cannot be reached"):
        await waiting.future


# Connections ---------------------------------------------------------------------------------------------------------


class NotedConnector:
    """Opens lanes that note what they are sent, or fails."""

    def __init__(self) -> None:
        self.opened: list[NotedLane] = []
        self.closed: list[object] = []
        self.fails: str | None = None

    async def open(self, lifetime_s: float) -> Lane:
        if self.fails is not None:
            raise Unavailable(self.fails)
        self.opened.append(NotedLane())
        return cast(Lane, self.opened[-1])

    async def close(self, lane: Lane) -> None:
        self.closed.append(lane)


class Site:
    """Two pools with their connections."""

    def __init__(self, max_open: int) -> None:
        self.connector = NotedConnector()
        self.reads, self.writes = (
            LanePool(
                depth=1,
                max_group=1,
                grow_at=grow_at,
                max_queued=100,
                max_lanes=max_open,
                grow=lambda pool: self.connections.grow(pool),
                discarded=lambda call: None,
            )
            for grow_at in (32, 0)
        )
        self.stats = Stats()
        self.connections = Connections(
            self.connector, (self.reads, self.writes), self.stats, max_open=max_open, on_reachable=lambda: None
        )

    async def settle(self) -> None:
        while self.connections.tasks:
            await asyncio.wait(self.connections.tasks)


async def test_one_connection_is_kept_for_the_other_kind() -> None:
    site = Site(max_open=3)
    for _ in range(5):
        site.connections.grow(site.reads)
        await site.settle()
    assert len(site.reads.lanes) == 2
    site.connections.grow(site.writes)
    await site.settle()
    assert len(site.writes.lanes) == 1
    assert site.connections.opened == 3
    assert site.connections.reachable


async def test_at_the_bound_an_idle_lane_changes_sides() -> None:
    site = Site(max_open=3)
    for pool in (site.reads, site.reads, site.writes, site.writes):
        site.connections.grow(pool)
        await site.settle()
    assert (len(site.reads.lanes), len(site.writes.lanes)) == (1, 2)
    assert len(site.connector.opened) == 3


async def test_a_failed_attempt_is_repeated_after_a_backoff(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "BACKOFF_S", (0.001, 0.002))
    site = Site(max_open=3)
    site.connector.fails = "no route"
    site.connections.grow(site.reads)
    while site.stats.unreachable < 3:
        await asyncio.sleep(0)
    assert not site.connections.reachable
    assert site.reads.down_since is not None
    site.connector.fails = None
    await site.settle()
    assert site.connections.reachable
    assert [record.getMessage() for record in caplog.records] == [
        "the database cannot be reached: no route",
        "the database is reachable again",
    ]


async def test_idle_and_old_lanes_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(max_open=5)
    for _ in range(3):
        site.connections.grow(site.reads)
        await site.settle()
    for lane in site.connector.opened:
        lane.idle_since -= connections.MAX_IDLE_S + 1
    site.connections.housekeep()
    await asyncio.sleep(0.01)
    assert len(site.reads.lanes) == 1
    (last,) = site.reads.lanes
    last.retires_at = 0
    site.connections.housekeep()
    await asyncio.sleep(0.01)
    assert site.reads.lanes == []
    assert site.connections.opened == 0
    await site.connections.stop(1, "the end")


async def test_a_busy_old_lane_drains_before_it_is_closed() -> None:
    site = Site(max_open=5)
    site.connections.grow(site.reads)
    await site.settle()
    (lane,) = site.connector.opened
    loop = asyncio.get_running_loop()
    lane.send([Call(READ, (1,), [b"1"], Fetch.ONE, loop.create_future(), 0, 1e9)], loop.time())
    lane.retires_at = 0
    lane.idle_since = 0  # long not idle
    site.connections.housekeep()
    await asyncio.sleep(0.01)
    assert lane.state is LaneState.RETIRING
    lane.end()
    site.connections.empty_retired(site.reads)
    await asyncio.sleep(0.01)
    assert site.connector.closed == [lane]
    await site.connections.stop(1, "the end")


async def test_housekeeping_goes_on_after_a_bug_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HOUSEKEEPING_S", 0.001)
    looked = asyncio.Event()
    looks = 0

    def look(pool: LanePool) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ZeroDivisionError
        looked.set()

    site = Site(max_open=3)
    monkeypatch.setattr(site.connections, "empty_retired", look)
    with pytest.raises(ZeroDivisionError):
        site.connections.housekeep()
    async with asyncio.timeout(1):
        await looked.wait()
    await site.connections.stop(1, "the end")


async def test_a_call_behind_younger_ones_fails_at_its_own_deadline() -> None:
    """A read that is sent again: its new lane has reads with later deadlines in front."""
    site = Site(max_open=3)
    site.connections.grow(site.reads)
    await site.settle()
    (lane,) = site.connector.opened
    loop = asyncio.get_running_loop()
    younger, older = (
        Call(READ, (1,), [b"1"], Fetch.ONE, loop.create_future(), 0, deadline) for deadline in (1e9, loop.time())
    )
    lane.send([younger], loop.time())
    lane.send([older], loop.time())
    lane.head_since = 1e9  # not stale
    watchdog = Watchdog((site.reads, site.writes), RowQueue(1), site.connections, site.stats, statement_timeout_s=1000)
    watchdog.wake()
    async with asyncio.timeout(1):
        with pytest.raises(TimedOut, match="deadline"):
            await older.future
    assert not younger.future.done()
    watchdog.stop()
    await site.connections.stop(1, "the end")
