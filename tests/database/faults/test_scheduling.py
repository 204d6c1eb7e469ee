"""Who waits for whom: growth, the spreading of writes, and what stands behind a statement that takes long."""

import asyncio
import time
from typing import Any

import psycopg
import pytest

from service.database import Database, TimedOut, connections
from service.database.lane import LaneState
from tests.database.ground import COUNT_UP, ECHO, SLOW, SLOW_WRITE, WRITE, opened, pending, ready
from tests.support.waiting import until


def count_connections(admin: psycopg.Connection) -> int:
    """Connections to this database, but for our own."""
    row = admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name <> 'admin'"
    ).fetchone()
    assert row is not None
    return row[0]


async def timed(call: asyncio.Future[Any]) -> float:
    begin = time.monotonic()
    await call
    return time.monotonic() - begin


async def test_reads_share_a_connection(database: Database) -> None:
    await ready(database)
    for _ in range(20):
        await asyncio.gather(*(database.fetch_one(ECHO, n) for n in range(16)))
    assert len(database.reads.lanes) == 1


async def test_never_more_connections_than_allowed_and_each_kind_has_its_first(
    url: str, admin: psycopg.Connection
) -> None:
    async with opened(url, connections=3) as database:
        most = 0
        for _ in range(3):
            calls = [asyncio.ensure_future(database.fetch_one(SLOW, n, 2)) for n in range(100)]
            calls += [asyncio.ensure_future(database.fetch_one(SLOW_WRITE, n, 2)) for n in range(50)]
            while not all(call.done() for call in calls):
                most = max(most, count_connections(admin))
                await asyncio.sleep(0.005)
            await asyncio.gather(*calls)
        assert most == 3
        assert database.reads.lanes
        assert database.writes.lanes


async def test_with_two_connections_both_kinds_are_served(url: str) -> None:
    """However many reads come first, one connection is left for writes."""
    async with opened(url, connections=2) as database:
        assert await asyncio.gather(*(database.fetch_one(SLOW, n, 1) for n in range(150))) == list(range(150))
        assert len(database.reads.lanes) == 1
        assert await asyncio.gather(*(database.fetch_one(WRITE, n) for n in range(100))) == list(range(100))
        assert len(database.reads.lanes) == len(database.writes.lanes) == 1


async def test_at_the_bound_an_idle_lane_changes_sides(url: str, admin: psycopg.Connection) -> None:
    """What reads opened and do not use, writes take over: without closing and connecting."""
    async with opened(url, connections=4) as database:
        await ready(database)
        while len(database.reads.lanes) < 3:
            await asyncio.gather(*(database.fetch_one(SLOW, n, 1) for n in range(150)))
        connects = database.stats.connects
        await asyncio.gather(*(database.fetch_one(SLOW_WRITE, n, 20) for n in range(30)))
        assert len(database.writes.lanes) == 3
        assert len(database.reads.lanes) == 1
        assert database.stats.connects == connects


@pytest.mark.parametrize("others", ["before", "after"])
async def test_writers_stuck_on_one_row_hold_up_only_that_row(url: str, admin: psycopg.Connection, others: str) -> None:
    """Ten writers wait for a row that another session holds; everybody else's writes and reads go on."""
    async with opened(url, connections=6, statement_timeout_s=5) as database:
        await ready(database)
        with admin.transaction():
            admin.execute("SELECT FROM counters WHERE id = 1 FOR UPDATE")
            stuck = [asyncio.ensure_future(database.fetch_one(COUNT_UP, 1)) for _ in range(10)]
            if others == "after":
                await asyncio.sleep(0.2)
            begin = time.monotonic()
            for _ in range(10):
                await asyncio.gather(
                    *(database.fetch_one(COUNT_UP, n) for n in range(2, 60)),
                    *(database.fetch_one(WRITE, n) for n in range(20)),
                    *(database.fetch_one(ECHO, n) for n in range(20)),
                )
            assert time.monotonic() - begin < 4  # the stuck reach their limit after 5 s
            assert not any(call.done() for call in stuck)
        assert sorted(filter(None, await asyncio.gather(*stuck))) == list(range(1, 11))
        assert admin.execute("SELECT DISTINCT value FROM counters WHERE id BETWEEN 2 AND 59").fetchall() == [(10,)]


async def test_what_was_sent_behind_a_stuck_write_gets_past_it(url: str, admin: psycopg.Connection) -> None:
    """It cannot be sent again, so the stuck one is cancelled, which changed nothing, and sent again by itself."""
    async with opened(url, connections=2) as database:
        await ready(database)
        with admin.transaction():
            admin.execute("SELECT FROM counters WHERE id = 1 FOR UPDATE")
            stuck = asyncio.ensure_future(database.fetch_one(COUNT_UP, 1))
            behind = [asyncio.ensure_future(database.fetch_one(WRITE, n)) for n in range(10)]
            async with asyncio.timeout(1):
                assert await asyncio.gather(*behind) == list(range(10))
            assert not stuck.done()
        assert await stuck == 1
        assert database.stats.lost == 0
        assert admin.execute("SELECT array_agg(n ORDER BY n) FROM ledger").fetchone() == (list(range(10)),)


async def test_the_stuck_time_out_and_leave_nothing(url: str, admin: psycopg.Connection) -> None:
    async with opened(url, connections=3, statement_timeout_s=0.2, deadline_s=0.4) as database:
        await ready(database)
        with admin.transaction():
            admin.execute("SELECT FROM counters WHERE id = 1 FOR UPDATE")
            ends = await asyncio.gather(*(database.fetch_one(COUNT_UP, 1) for _ in range(4)), return_exceptions=True)
            assert all(isinstance(end, TimedOut) for end in ends)
            await until(lambda: pending(database) == 0)
        assert admin.execute("SELECT value FROM counters WHERE id = 1").fetchone() == (0,)
        assert await database.fetch_one(COUNT_UP, 1) == 1


async def test_a_slow_read_holds_up_no_other(database: Database) -> None:
    await ready(database)
    for _ in range(3):
        slow = asyncio.ensure_future(database.fetch_one(SLOW, 0, 300))
        begin = time.monotonic()
        assert await asyncio.gather(*(database.fetch_one(ECHO, n) for n in range(30))) == list(range(30))
        assert time.monotonic() - begin < 0.2
        assert await slow == 0
    assert database.stats.hedged > 0
    assert database.stats.lost == 0  # asked twice, each lane keeps its own count of what it is owed


async def test_slow_reads_hold_up_no_write(url: str) -> None:
    async with opened(url, grace_s=0) as database:
        await ready(database)
        slow = [asyncio.ensure_future(database.fetch_one(SLOW, n, 300)) for n in range(10)]
        await asyncio.sleep(0)
        assert await timed(asyncio.ensure_future(database.fetch_one(WRITE, 1))) < 0.1
        assert not any(call.done() for call in slow)
        for call in slow:
            call.cancel()


async def test_writes_of_one_row_keep_their_order(url: str, admin: psycopg.Connection) -> None:
    """They go over one lane, so the answers count up as they were asked."""
    async with opened(url, connections=10) as database:
        await ready(database)
        ends = await asyncio.gather(*(database.fetch_one(COUNT_UP, 1) for _ in range(100)))
        assert ends == list(range(1, 101))


async def test_idle_lanes_are_given_back_but_for_one_of_each_kind(
    url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_IDLE_S", 0.05)
    monkeypatch.setattr(connections, "HOUSEKEEPING_S", 0.02)
    async with opened(url, connections=6) as database:
        await asyncio.gather(*(database.fetch_one(SLOW_WRITE, n, 10) for n in range(60)))
        assert database.lanes > 2
        await ready(database)
        await until(lambda: count_connections(admin) == 2)
        assert database.lanes == 2


async def test_a_lane_is_followed_by_another_before_it_goes(
    url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load a lifetime ends with nobody waiting for a connection."""
    monkeypatch.setattr(connections, "MAX_LIFETIME_S", (0.1, 0.2))
    monkeypatch.setattr(connections, "HOUSEKEEPING_S", 0.02)
    async with opened(url, connections=6) as database:
        await ready(database)
        slowest, end = 0.0, time.monotonic() + 1
        seen = set[int]()
        while time.monotonic() < end:
            slowest = max(slowest, await timed(asyncio.ensure_future(database.fetch_one(ECHO, 1))))
            seen |= {id(lane) for lane in database.reads.lanes}
            assert count_connections(admin) <= 6
        assert database.stats.connects >= 5
        assert database.stats.lost == 0
        assert slowest < 0.1


async def test_with_no_room_for_a_successor_a_lane_goes_first(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given back as soon as it has drained, so that nobody waits for longer than it takes to connect."""
    monkeypatch.setattr(connections, "MAX_LIFETIME_S", (0.1, 0.2))
    monkeypatch.setattr(connections, "HOUSEKEEPING_S", 0.4)
    async with opened(url, connections=2) as database:
        await ready(database)
        slowest, end = 0.0, time.monotonic() + 1
        while time.monotonic() < end:
            slowest = max(slowest, await timed(asyncio.ensure_future(database.fetch_one(SLOW, 1, 10))))
        assert database.stats.connects >= 4
        assert database.stats.lost == 0
        assert slowest < 0.3


async def test_a_row_written_without_pause_lets_its_lane_go(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_LIFETIME_S", (0.1, 0.1))
    monkeypatch.setattr(connections, "HOUSEKEEPING_S", 0.02)
    async with opened(url, connections=4) as database:
        await ready(database)
        (first,) = database.writes.lanes
        end = time.monotonic() + 5

        async def write() -> None:
            while first.state is not LaneState.CLOSED:
                assert time.monotonic() < end
                await database.fetch_one(COUNT_UP, 1)

        await asyncio.gather(*(write() for _ in range(4)))


async def test_an_old_idle_lane_is_given_back_and_nothing_connects(
    url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A suspended Neon compute is not woken for the sake of a lifetime."""
    monkeypatch.setattr(connections, "MAX_LIFETIME_S", (0.1, 0.1))
    monkeypatch.setattr(connections, "HOUSEKEEPING_S", 0.04)
    async with opened(url) as database:
        await ready(database)
        await until(lambda: count_connections(admin) == 0)
        connects = database.stats.connects
        await asyncio.sleep(0.2)
        assert database.stats.connects == connects
        assert database.reachable
        assert await database.fetch_one(ECHO, 1) == 1
