"""Every wait has a bound: statements, deadlines, the queue, and a connection on which nothing comes any more."""

import asyncio
import time

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from service.database import Database, TimedOut, Unavailable
from service.database import database as database_module
from tests.database.ground import COUNT_UP, ECHO, SLOW, SLOW_WRITE, opened, overrun, pending, ready, statement
from tests.support.proxy import Proxy
from tests.support.waiting import until

RUNNING = (
    "SELECT {} FROM pg_stat_activity WHERE query LIKE '%pg_sleep(%' AND state = 'active' AND pid <> pg_backend_pid()"
    " AND datname = current_database()"
)


async def test_a_statement_over_its_limit_is_cancelled_and_those_behind_it_are_not(url: str) -> None:
    async with opened(url, connections=2, statement_timeout_s=0.2) as database:
        await ready(database)
        assert 0.2 <= await overrun(database) < 0.6


async def test_a_write_over_its_limit_changes_nothing(url: str, admin: psycopg.Connection) -> None:
    async with opened(url, statement_timeout_s=0.2) as database:
        await ready(database)
        with pytest.raises(TimedOut):
            await database.fetch_one(SLOW_WRITE, 1, 5000)
        assert database.stats.lost == 0
    assert admin.execute("SELECT count(*) FROM ledger").fetchone() == (0,)


async def test_a_cancel_that_comes_late_hits_nobody(database: Database, admin: psycopg.Connection) -> None:
    """The statement it hits, meant for the one before, is sent again."""
    await ready(database)
    call = asyncio.ensure_future(database.fetch_one(SLOW_WRITE, 1, 100))
    await until(lambda: admin.execute(RUNNING.format("pid")).fetchall())
    (lane,) = (lane for lane in database.writes.lanes if lane.in_flight)
    database.watchdog.cancel(lane)
    assert await call == 1
    assert database.stats.retried == 1
    assert admin.execute("SELECT n FROM ledger").fetchall() == [(1,)]


async def test_what_an_administrator_cancels_stays_cancelled(database: Database, admin: psycopg.Connection) -> None:
    await ready(database)
    call = asyncio.ensure_future(database.fetch_one(SLOW, 1, 5000))
    await until(lambda: admin.execute(RUNNING.format("pg_cancel_backend(pid)")).fetchall())
    with pytest.raises(TimedOut):
        await call
    assert database.stats.retried == 0


async def test_a_limit_that_the_database_sets_is_not_stretched_by_repeats(url: str, admin: psycopg.Connection) -> None:
    options = make_conninfo(url, options="-c statement_timeout=100")
    async with opened(options) as database:
        begin = time.monotonic()
        with pytest.raises(TimedOut):
            await database.fetch_one(SLOW, 1, 5000)
        assert time.monotonic() - begin < 0.4
        assert database.stats.retried == 0


async def test_a_sent_call_past_its_deadline_is_told_so(url: str) -> None:
    """Though its lane moves: each statement ahead of it takes less than what counts as stale."""
    async with opened(url, connections=2, deadline_s=0.3, grace_s=0) as database:
        await ready(database)
        begin = time.monotonic()
        calls = [asyncio.ensure_future(database.fetch_one(SLOW, n, 20)) for n in range(60)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - begin < 0.5
        assert ends[0] == 0
        assert isinstance(ends[-1], TimedOut)


async def test_a_write_that_waits_for_its_row_past_its_deadline_is_told_so(url: str, admin: psycopg.Connection) -> None:
    async with opened(url, deadline_s=0.3) as database:
        await ready(database)
        with admin.transaction():
            admin.execute("SELECT FROM counters WHERE id = 1 FOR UPDATE")
            begin = time.monotonic()
            ends = await asyncio.gather(*(database.fetch_one(COUNT_UP, 1) for _ in range(10)), return_exceptions=True)
            assert time.monotonic() - begin < 0.6
            assert all(isinstance(end, TimedOut) for end in ends)
            await until(lambda: pending(database) == 0)
        assert admin.execute("SELECT value FROM counters WHERE id = 1").fetchone() == (0,)


async def test_a_waiting_call_past_its_deadline_is_told_so(url: str) -> None:
    async with Proxy(url) as proxy:
        proxy.flows.clear()  # connecting hangs
        async with opened(proxy.url, deadline_s=0.2, grace_s=0) as database:
            begin = time.monotonic()
            with pytest.raises(Unavailable, match="in time"):
                await database.fetch_one(ECHO, 1)
            assert 0.2 <= time.monotonic() - begin < 0.4


async def test_the_queue_is_bounded(url: str) -> None:
    async with opened(url, max_queued=10) as database:
        calls = [database.fetch_one(ECHO, n) for n in range(30)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert ends[:10] == list(range(10))
        assert {str(end) for end in ends[10:]} == {"too many calls wait for the database"}


async def test_a_write_that_nobody_waits_for_is_not_left_to_wait_for_its_row(
    url: str, admin: psycopg.Connection
) -> None:
    """A client that goes away frees what it held."""
    async with opened(url, statement_timeout_s=10, deadline_s=30) as database:
        await ready(database)
        with admin.transaction():
            admin.execute("SELECT FROM counters WHERE id = 1 FOR UPDATE")
            calls = [asyncio.ensure_future(database.fetch_one(COUNT_UP, 1)) for _ in range(3)]
            await until(lambda: pending(database) == 3)
            for call in calls:
                call.cancel()
            await until(lambda: pending(database) == 0)
        assert admin.execute("SELECT value FROM counters WHERE id = 1").fetchone() == (0,)
        assert database.stats.lost == 0


async def test_closing_ends_within_its_grace(url: str) -> None:
    begin = time.monotonic()
    async with opened(url, grace_s=0.2) as database:
        await ready(database)
        call = asyncio.ensure_future(database.fetch_one(SLOW, 1, 5000))
        await asyncio.sleep(0)
    assert time.monotonic() - begin < 2
    with pytest.raises(Unavailable, match="shutting down"):
        await call


async def test_closing_lets_what_is_under_way_end(url: str) -> None:
    async with opened(url) as database:
        await ready(database)
        calls = [asyncio.ensure_future(database.fetch_one(SLOW_WRITE, n, 100)) for n in range(3)]
        await asyncio.sleep(0)
    assert [call.result() for call in calls] == [0, 1, 2]
    with pytest.raises(Unavailable, match="shutting down"):
        await database.fetch_one(ECHO, 1)


CONFLICT_ONCE = """
CREATE SEQUENCE attempts;
CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('attempts') = 1 THEN RAISE EXCEPTION 'retry' USING ERRCODE = '40P01'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER conflict BEFORE UPDATE ON counters FOR EACH ROW EXECUTE FUNCTION conflict();
"""


async def test_a_call_sent_again_after_a_deadlock_has_its_time_limit(url: str, admin: psycopg.Connection) -> None:
    """The lock's holder stays, and nothing else is pending meanwhile."""
    admin.execute("""
        CREATE SEQUENCE attempts;
        CREATE FUNCTION conflict_then_lock() RETURNS integer LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('attempts') = 1 THEN RAISE EXCEPTION 'retry' USING ERRCODE = '40P01'; END IF;
            UPDATE counters SET value = value + 1 WHERE id = 1;
            RETURN 1;
        END $$;
    """)
    write = statement("/* update */ SELECT conflict_then_lock()", name="conflict_then_lock")
    async with opened(url, statement_timeout_s=0.3) as database:
        await ready(database)
        with admin.transaction():
            admin.execute("SELECT FROM counters WHERE id = 1 FOR UPDATE")
            async with asyncio.timeout(3):
                with pytest.raises(TimedOut):
                    await database.fetch_one(write)
        assert database.stats.retried == 1


async def test_closing_waits_for_a_call_that_backs_off(
    url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CONFLICT_DELAY_S", (0.2, 0.2))
    async with opened(url) as database:
        await ready(database)
        admin.execute(CONFLICT_ONCE)
        call = asyncio.ensure_future(database.fetch_one(COUNT_UP, 1))
        await until(lambda: database.stats.retried)
    async with asyncio.timeout(1):
        assert await call == 1


async def test_closing_fails_a_call_that_backs_off_for_longer(
    url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CONFLICT_DELAY_S", (0.2, 0.2))
    async with opened(url, grace_s=0) as database:
        await ready(database)
        admin.execute(CONFLICT_ONCE)
        calls = [asyncio.ensure_future(database.fetch_one(COUNT_UP, 1)) for _ in range(2)]  # one waits for the row
        await until(lambda: database.stats.retried)
    async with asyncio.timeout(1):
        for call in calls:
            with pytest.raises(Unavailable, match="shutting down"):
                await call


async def test_closing_while_it_connects(url: str) -> None:
    async with Proxy(url) as proxy:
        proxy.flows.clear()
        begin = time.monotonic()
        async with opened(proxy.url, grace_s=0):
            await until(lambda: proxy.accepted)
        assert time.monotonic() - begin < 2


async def test_a_statement_that_is_not_there_yet_when_looked_at(url: str) -> None:
    """The comparison with the schema is bounded like any other statement."""
    async with (
        Proxy(url) as proxy,
        opened(proxy.url, verify=[statement("SELECT 1")], statement_timeout_s=0.2) as database,
    ):
        assert database.mismatch is not None
        await until(lambda: database.mismatch is None)
