"""A shortage of connections, of rows or of disk: which calls wait, and which do not."""

import asyncio
import time

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from service.operations import embedded
from tests.database.faults.test_scheduling import count_connections
from tests.database.ground import ECHO, SLOW, SLOW_WRITE, TABLES, WRITE, opened, pending, ready, statement
from tests.support.waiting import until


@pytest.mark.parametrize("kind", ["writes", "reads"])
@pytest.mark.parametrize("goes_on", [False, True])
async def test_who_gets_no_connection_because_the_other_kind_has_all_gets_one_of_those(
    url: str, admin: psycopg.Connection, kind: str, goes_on: bool
) -> None:
    """PostgreSQL may allow fewer connections than this process would open."""
    admin.execute("DROP ROLE IF EXISTS few; CREATE ROLE few LOGIN CONNECTION LIMIT 3")
    admin.execute("GRANT USAGE ON SCHEMA public TO few; GRANT ALL ON ALL TABLES IN SCHEMA public TO few")
    async with opened(make_conninfo(url, user="few"), connections=10) as database:
        busy, starved = (SLOW, database.writes) if kind == "writes" else (SLOW_WRITE, database.reads)
        ends = asyncio.Event()

        async def ask(n: int) -> None:
            while not ends.is_set():
                await database.fetch_one(busy, n, 5)

        if kind == "reads":
            await ready(database)
            for lane in tuple(starved.lanes):
                database.connections.give_back(starved, lane)
        async with asyncio.TaskGroup() as tasks:
            for n in range(100):
                tasks.create_task(ask(n))
            await until(lambda: count_connections(admin) == 3 and not starved.lanes)
            if not goes_on:
                ends.set()
                await until(lambda: not pending(database))
            wanted = database.fetch_one(WRITE, 1) if kind == "writes" else database.fetch_one(ECHO, 1)
            assert await asyncio.wait_for(wanted, 2) == 1
            assert database.reachable
            ends.set()
    admin.execute("DROP OWNED BY few; DROP ROLE few")


async def test_writers_of_many_locked_rows_leave_half_of_the_lanes_to_others(
    url: str, admin: psycopg.Connection
) -> None:
    """As creates wait for their user's row: however many wait, writes that wait for nothing go on."""
    admin.execute("CREATE TABLE owners (id integer PRIMARY KEY); INSERT INTO owners SELECT generate_series(1, 20)")
    admin.execute("CREATE TABLE owned (owner integer NOT NULL REFERENCES owners)")
    create = statement(
        "INSERT INTO owned VALUES (%(id)s::integer) RETURNING owner", id=int, lock_order=("id",), name="create"
    )
    async with opened(url, connections=5) as database:
        await ready(database)
        with admin.transaction():
            admin.execute("SELECT FROM owners WHERE id < 20 FOR UPDATE")
            stuck = [asyncio.ensure_future(database.fetch_one(create, n)) for n in range(1, 20)]
            async with asyncio.timeout(4):  # the stuck reach their limit after 5 s
                for _ in range(20):
                    await asyncio.gather(*(database.fetch_one(create, 20) for _ in range(12)))
            assert not any(call.done() for call in stuck)
        assert await asyncio.gather(*stuck) == list(range(1, 20))


async def test_slow_commits_are_shared() -> None:
    """Commits of 3 ms and more, by PostgreSQL's own commit_delay, which needs a disk that is waited for."""
    slow_disk = {"fsync": "on", "synchronous_commit": "on", "commit_delay": "3000", "commit_siblings": "0"}
    with embedded.temporary(slow_disk) as cluster:
        with psycopg.connect(cluster.url, autocommit=True) as admin:
            admin.execute(TABLES)
        async with opened(cluster.url, connections=10) as database:
            await ready(database)
            numbers = iter(range(640))

            async def write() -> None:
                for n in numbers:
                    await database.fetch_one(WRITE, n)

            begin = time.monotonic()
            await asyncio.gather(*(write() for _ in range(64)))
            *groups, writes = database.stats.groups
            assert writes == 640 + 1
            assert sum(groups) < 640 / 4
            assert time.monotonic() - begin < 640 * 0.003 / 4
            assert len(database.writes.lanes) <= 5
