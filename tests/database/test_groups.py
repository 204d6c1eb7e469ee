"""Writes that share a commit: none is confirmed before its group's commit, and nobody but the culprit gets an error.

`gathered` forces large groups: what is sent in one turn of the event loop goes as one.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator

import psycopg
import pytest

from service.database import ConstraintViolation, Database, TimedOut, Unavailable
from service.database.lane_pool import LanePool
from tests.database.ground import COUNT_UP, ECHO, WRITE, opened, pending, ready, statement
from tests.support.databases import terminate
from tests.support.proxy import Proxy
from tests.support.waiting import until

LARGE = 50


@pytest.fixture
async def gathered(url: str) -> AsyncGenerator[Database]:
    async with opened(url, connections=4, max_group=LARGE) as database:
        await ready(database)
        yield database


def groups(database: Database) -> int:
    return sum(database.stats.groups[:-1])


def transactions(admin: psycopg.Connection) -> int:
    """That the ledger's rows came from."""
    row = admin.execute("SELECT count(DISTINCT xmin::text) FROM ledger").fetchone()
    assert row is not None
    return row[0]


def rows(admin: psycopg.Connection) -> list[int]:
    return [n for (n,) in admin.execute("SELECT n FROM ledger ORDER BY n")]


async def test_writes_of_one_turn_share_a_commit(gathered: Database, admin: psycopg.Connection) -> None:
    assert await asyncio.gather(*(gathered.fetch_one(WRITE, n) for n in range(LARGE))) == list(range(LARGE))
    assert transactions(admin) == 1
    assert rows(admin) == list(range(LARGE))


async def test_a_group_is_bounded(url: str, admin: psycopg.Connection) -> None:
    async with opened(url, connections=4, max_group=8) as database:
        await asyncio.gather(*(database.fetch_one(WRITE, n) for n in range(50)))
    assert transactions(admin) >= 50 / 8


async def test_without_prepared_statements_each_write_commits_alone(url: str, admin: psycopg.Connection) -> None:
    async with opened(url, connections=4, prepare=False) as database:
        await asyncio.gather(*(database.fetch_one(WRITE, n) for n in range(20)))
    assert transactions(admin) == 20


async def test_a_write_without_a_lock_order_commits_alone(gathered: Database, admin: psycopg.Connection) -> None:
    """As keyed creates do, which wait for other transactions by design."""
    lonely = statement("INSERT INTO ledger VALUES (%(n)s::integer) RETURNING n", n=int, name="lonely")
    await asyncio.gather(*(gathered.fetch_one(lonely, n) for n in range(10)))
    assert transactions(admin) == 10


async def test_a_write_that_comes_alone_goes_at_once(gathered: Database) -> None:
    before = groups(gathered)
    for n in range(5):
        await gathered.fetch_one(WRITE, n)
    assert groups(gathered) == before + 5


async def test_no_member_is_confirmed_before_the_commit(url: str, admin: psycopg.Connection) -> None:
    """The rows are there, the ReadyForQuery that says that they are committed is not."""
    async with Proxy(url) as proxy, opened(proxy.url, max_group=LARGE) as database:
        await ready(database)
        held = asyncio.Event()

        def hold(message: bytes) -> bytes:
            if message[:1] == b"Z":
                held.set()
                proxy.flows.clear()
                return b""
            return message

        proxy.edit = hold
        calls = [database.fetch_one(WRITE, n) for n in range(10)]
        await asyncio.wait_for(held.wait(), 5)
        assert not any(call.done() for call in calls)
        proxy.edit = None
        proxy.cut()
        proxy.flows.set()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, Unavailable) for end in ends)  # in doubt
    assert rows(admin) == list(range(10))  # once


@pytest.mark.parametrize("culprit", [0, 17, LARGE - 1])
async def test_who_fails_in_a_group_fails_alone(gathered: Database, admin: psycopg.Connection, culprit: int) -> None:
    admin.execute(f"ALTER TABLE ledger ADD CONSTRAINT ledger_n CHECK (n <> {culprit})".encode())
    ends = await asyncio.gather(*(gathered.fetch_one(WRITE, n) for n in range(LARGE)), return_exceptions=True)
    assert isinstance(ends[culprit], ConstraintViolation)
    others = [n for n in range(LARGE) if n != culprit]
    assert [end for n, end in enumerate(ends) if n != culprit] == others
    assert rows(admin) == others
    assert gathered.stats.lost == 0


async def test_half_of_a_group_fails(gathered: Database, admin: psycopg.Connection) -> None:
    admin.execute("ALTER TABLE ledger ADD CONSTRAINT ledger_even CHECK (n % 2 = 0)")
    ends = await asyncio.gather(*(gathered.fetch_one(WRITE, n) for n in range(LARGE)), return_exceptions=True)
    assert [end for end in ends if isinstance(end, int)] == list(range(0, LARGE, 2)) == rows(admin)
    assert sum(isinstance(end, ConstraintViolation) for end in ends) == LARGE / 2


async def test_an_error_at_the_commit_names_nobody(gathered: Database, admin: psycopg.Connection) -> None:
    admin.execute("CREATE TABLE parents (n integer PRIMARY KEY)")
    admin.execute("INSERT INTO parents SELECT n FROM generate_series(0, 50) AS n WHERE n <> 7")
    admin.execute(
        "ALTER TABLE ledger ADD CONSTRAINT ledger_n FOREIGN KEY (n) REFERENCES parents DEFERRABLE INITIALLY DEFERRED"
    )
    ends = await asyncio.gather(*(gathered.fetch_one(WRITE, n) for n in range(20)), return_exceptions=True)
    assert [n for n, end in enumerate(ends) if isinstance(end, ConstraintViolation)] == [7]
    assert rows(admin) == [n for n in range(20) if n != 7]


async def test_who_waits_for_a_lock_waits_alone(gathered: Database, admin: psycopg.Connection) -> None:
    with admin.transaction():
        admin.execute("SELECT FROM counters WHERE id = 20 FOR UPDATE")
        calls = [gathered.fetch_one(COUNT_UP, n) for n in range(1, 41)]
        async with asyncio.timeout(2):
            others = await asyncio.gather(*(call for n, call in enumerate(calls, 1) if n != 20))
        assert others == [1] * 39
        assert not calls[19].done()
    assert await calls[19] == 1
    assert admin.execute("SELECT DISTINCT value FROM counters WHERE id <= 40").fetchall() in ([(1,)], [(1,), (2,)])
    assert gathered.stats.lost == 0


async def test_who_waits_too_long_times_out_alone(url: str, admin: psycopg.Connection) -> None:
    async with opened(url, max_group=LARGE, statement_timeout_s=0.4) as database:
        await ready(database)
        with admin.transaction():
            admin.execute("SELECT FROM counters WHERE id IN (3, 5) FOR UPDATE")
            calls = [database.fetch_one(COUNT_UP, n) for n in range(1, 21)]
            ends = await asyncio.gather(*calls, return_exceptions=True)
        assert [n for n, end in enumerate(ends, 1) if isinstance(end, TimedOut)] == [3, 5]
        assert [end for n, end in enumerate(ends, 1) if n not in (3, 5)] == [1] * 18
    assert admin.execute("SELECT id FROM counters WHERE id <= 20 AND value = 0 ORDER BY id").fetchall() == [(3,), (5,)]


async def test_a_callers_leaving_costs_its_group_nothing(gathered: Database, admin: psycopg.Connection) -> None:
    calls = [gathered.fetch_one(WRITE, n) for n in range(20)]
    await asyncio.sleep(0)
    calls[3].cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [end for end in ends if isinstance(end, int)] == [n for n in range(20) if n != 3]
    await until(lambda: not pending(gathered))


async def test_an_administrators_cancel_hits_one_member(gathered: Database, admin: psycopg.Connection) -> None:
    slow = statement(
        "UPDATE counters SET value = value + 1 FROM pg_sleep(0.05) WHERE id = %(id)s::integer RETURNING value",
        id=int,
        key=("id",),
        name="slow_count",
    )
    running = (
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(0.05)%' AND state = 'active'"
        " AND pid <> pg_backend_pid() AND datname = current_database()"
    )
    calls = [gathered.fetch_one(slow, n) for n in (1, 2)]
    await until(lambda: admin.execute(running).fetchall())
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, TimedOut) for end in ends) == 1
    assert [end for end in ends if isinstance(end, int)] == [1]


async def test_all_is_in_doubt_when_the_connection_ends(url: str, admin: psycopg.Connection) -> None:
    """Whatever part of the replies has come: each member was confirmed and is there, or is in doubt; none twice."""
    for left in (0, 5, 40, 100, 200, 400, 800):
        admin.execute("TRUNCATE ledger")
        async with Proxy(url) as proxy, opened(proxy.url, connections=2, max_group=LARGE) as database:
            await ready(database)
            await database.fetch_one(WRITE, 1000)
            proxy.left = left
            ends = await asyncio.gather(*(database.fetch_one(WRITE, n) for n in range(10)), return_exceptions=True)
        found = rows(admin)
        assert len(found) == len(set(found))
        assert all(isinstance(end, Unavailable) or (end == n and n in found) for n, end in enumerate(ends))


async def test_a_group_cut_before_its_sync_changes_nothing(url: str, admin: psycopg.Connection) -> None:
    """PostgreSQL has run every statement and never sees the Sync."""
    async with Proxy(url) as proxy, opened(proxy.url, connections=2, max_group=LARGE) as database:
        await ready(database)
        await database.fetch_one(WRITE, 1000)
        proxy.edit_up = lambda data: data.removesuffix(b"S\0\0\0\4")
        calls = [database.fetch_one(WRITE, n) for n in range(10)]
        await asyncio.sleep(0.05)
        assert rows(admin) == [1000]
        proxy.cut()
        proxy.edit_up = None
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(end, Unavailable) for end in ends)  # the service cannot know that the Sync did not arrive
    assert rows(admin) == [1000]


@pytest.mark.parametrize("seconds", [1, pytest.param(600, marks=[pytest.mark.slow, pytest.mark.timeout(700)])])
async def test_groups_of_two_processes_do_not_deadlock(url: str, admin: psycopg.Connection, seconds: int) -> None:
    """Two services write the same hundred rows at random, in large groups."""
    row = admin.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    async with opened(url, max_group=32) as one, opened(url, max_group=32) as other:
        end = time.monotonic() + seconds
        done = 0

        async def write(database: Database) -> None:
            nonlocal done
            while time.monotonic() < end:
                await database.fetch_one(COUNT_UP, random.randint(1, 100))
                done += 1

        await asyncio.gather(*(write(database) for database in (one, other) for _ in range(48)))
        shared = sum(database.stats.groups[-1] - groups(database) for database in (one, other))
        assert shared > done / 4
        assert one.stats.failures["40"] == other.stats.failures["40"] == 0
    admin.execute("SELECT pg_stat_clear_snapshot()")
    after = admin.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert after == row
    assert admin.execute("SELECT sum(value) FROM counters").fetchone() == (done,)


async def test_all_backends_terminated_between_groups(url: str, admin: psycopg.Connection) -> None:
    async with opened(url, max_group=LARGE) as database:
        confirmed = list[int | None]()
        numbers = iter(range(100_000))
        stop = asyncio.Event()

        async def write() -> None:
            while not stop.is_set():
                try:
                    confirmed.append(await database.fetch_one(WRITE, next(numbers)))
                except Unavailable:
                    await asyncio.sleep(0)

        writers = [asyncio.create_task(write()) for _ in range(40)]
        for round_ in range(1, 5):
            await until(lambda enough=round_ * 300: len(confirmed) > enough)
            terminate(admin)
        await until(lambda: len(confirmed) > 1500)
        stop.set()
        await asyncio.gather(*writers)
    found = rows(admin)
    assert len(found) == len(set(found))
    assert set(confirmed) <= set(found)


async def test_lanes_follow_the_commit_time(url: str) -> None:
    """A hundred writers near the database: their groups are few and full, and so are the lanes."""
    async with opened(url, connections=10) as database:
        await ready(database)

        async def write(first: int) -> None:
            for n in range(20):
                await database.fetch_one(WRITE, first + n)

        await asyncio.gather(*(write(client * 100) for client in range(100)))
        pool: LanePool = database.writes
        assert len(pool.lanes) <= 7
        assert groups(database) < 2000 / 4
        assert await database.fetch_one(ECHO, 1) == 1
