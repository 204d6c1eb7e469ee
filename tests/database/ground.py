"""The statements of the database package's tests, and their tables."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sized
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import pytest

from service.database import Database, Statement, TimedOut, Unavailable
from tests.support.waiting import until

TABLES = """
CREATE TABLE ledger (n integer NOT NULL);
CREATE TABLE counters (id integer PRIMARY KEY, value integer NOT NULL DEFAULT 0);
INSERT INTO counters (id) SELECT generate_series(1, 100);
"""


def statement(
    sql: str, *, key: tuple[str, ...] = (), lock_order: tuple[str, ...] = (), name: str = "", **kinds: type
) -> Statement[Any]:
    return Statement(
        name or "test", f"-- For a test.\n{sql}", kinds, lambda value: value, key=key, lock_order=lock_order
    )


ECHO = statement("SELECT %(n)s::integer", n=int, name="echo")
# Answers n after some ms.
SLOW = statement("SELECT %(n)s::integer FROM pg_sleep(%(ms)s::integer / 1000.0)", n=int, ms=int, name="slow")
BIG = statement("SELECT repeat('x', %(size)s::integer)", size=int, name="big")
BACK = statement("SELECT %(text)s::text", text=str, name="back")
FAILS = statement("SELECT 1 / (%(n)s::integer - %(n)s::integer)", n=int, name="fails")
BACKEND = statement("SELECT pg_backend_pid()", name="backend")

# Like a create: it may share a commit.
WRITE = statement("INSERT INTO ledger (n) VALUES (%(n)s::integer) RETURNING n", n=int, lock_order=("n",), name="write")
# Like a keyed create: it shares no commit.
SLOW_WRITE = statement(
    "INSERT INTO ledger (n) SELECT %(n)s::integer FROM pg_sleep(%(ms)s::integer / 1000.0) RETURNING n",
    n=int,
    ms=int,
    name="slow_write",
)
COUNT_UP = statement(
    "UPDATE counters SET value = value + 1 WHERE id = %(id)s::integer RETURNING value",
    id=int,
    key=("id",),
    name="count_up",
)


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncGenerator[Database]:
    """A Database that has, when it closes, nothing left of anything."""
    grace_s = options.pop("grace_s", 1)
    options = {"connections": 4} | options
    database = Database(url, **options)
    await database.open()
    try:
        yield database
    finally:
        await database.close(grace_s)
        assert database.in_flight == database.queued == database.lanes == 0
        assert not database.rows.held  # no row stays taken
        assert not database.connections.opened


def pending(database: Database) -> int:
    """Calls sent or queued."""
    return database.in_flight + database.queued


async def more(numbers: Sized, many: int) -> None:
    """Returns when there are so many more than now."""
    enough = len(numbers) + many
    await until(lambda: len(numbers) >= enough)


@asynccontextmanager
async def under_load(database: Database, admin: psycopg.Connection) -> AsyncGenerator[list[Any]]:
    """16 clients write and read; yields the numbers whose write was acknowledged. At the end each of them is in the
    ledger, and none is there twice.
    """
    await ready(database)
    acknowledged: list[Any] = []
    numbers = iter(range(1_000_000))
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            n = next(numbers)
            with suppress(Unavailable):
                acknowledged.append(await database.fetch_one(WRITE, n))
            assert await database.fetch_one(ECHO, n) == n

    clients = [asyncio.create_task(client()) for _ in range(16)]
    try:
        yield acknowledged
    finally:
        stop.set()
        await asyncio.gather(*clients)
    found = [n for (n,) in admin.execute("SELECT n FROM ledger")]
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)


async def overrun(database: Database) -> float:
    """Sends a statement of 5 s with reads behind it, and returns the seconds until it was cancelled for its limit."""
    begin = time.monotonic()
    slow = asyncio.ensure_future(database.fetch_one(SLOW, 0, 5000))
    behind = [asyncio.ensure_future(database.fetch_one(ECHO, n)) for n in range(20)]
    with pytest.raises(TimedOut) as caught:
        await slow
    took = time.monotonic() - begin
    assert caught.value.sqlstate == "57014"
    assert await asyncio.gather(*behind) == list(range(20))
    assert database.stats.lost == 0
    return took


async def ready(database: Database) -> None:
    """Opens the first lane for reads and the first for writes."""
    await asyncio.gather(database.fetch_one(ECHO, 0), database.fetch_one(COUNT_UP, 100))
