"""Through PgBouncer in transaction mode: it hands each transaction to whichever backend is free.

These hold on Debian's 1.18, which has no prepared statements, and were run on 1.25.2, which has.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest

from service.database import InternalError, Unavailable
from tests.database.ground import (
    BACK,
    BACKEND,
    BIG,
    COUNT_UP,
    ECHO,
    FAILS,
    SLOW,
    WRITE,
    more,
    opened,
    overrun,
    pending,
    ready,
    statement,
    under_load,
)
from tests.support import pgbouncer
from tests.support.pgbouncer import PgBouncer, keeps_prepared_statements
from tests.support.waiting import until

pytestmark = pytest.mark.debian


@pytest.fixture
def bouncer(url: str) -> Iterator[PgBouncer]:
    with pgbouncer.running(url) as bouncer:
        yield bouncer


async def test_everybody_gets_their_own_answer(bouncer: PgBouncer, admin: psycopg.Connection) -> None:
    """More connections than backends, many callers, some of whose statements fail or are large."""
    async with opened(bouncer.url, prepare=keeps_prepared_statements(), connections=8) as database:
        await ready(database)
        for _ in range(5):
            reads = [database.fetch_one(FAILS if n % 7 == 3 else ECHO, n) for n in range(300)]
            writes = [database.fetch_one(WRITE, n) for n in range(100)]
            counts = [database.fetch_one(COUNT_UP, n % 5 + 1) for n in range(100)]
            texts = [database.fetch_one(BACK, chr(97 + n) * 300_000) for n in range(10)]
            ends = await asyncio.gather(*reads, *writes, *counts, *texts, return_exceptions=True)
            for n, end in enumerate(ends[:300]):
                assert (isinstance(end, InternalError) and end.sqlstate == "22012") if n % 7 == 3 else end == n
            assert ends[300:400] == list(range(100))
            assert ends[500:] == [chr(97 + n) * 300_000 for n in range(10)]
        assert database.stats.lost == 0
    assert admin.execute("SELECT count(*), count(DISTINCT n) FROM ledger").fetchone() == (500, 100)
    assert admin.execute("SELECT sum(value) FROM counters WHERE id <= 5").fetchone() == (500,)


async def test_a_lane_is_one_statement_deep(bouncer: PgBouncer) -> None:
    """Deeper, this PgBouncer gives the backend away while a statement is half passed on: connections break."""
    async with opened(bouncer.url, prepare=False, connections=3) as database:
        await ready(database)
        calls = [asyncio.ensure_future(database.fetch_one(SLOW, n, 5)) for n in range(20)]
        while not all(call.done() for call in calls):
            assert max(lane.in_flight for lane in database.reads.lanes) <= 1
            await asyncio.sleep(0.001)
        assert await asyncio.gather(*calls) == list(range(20))


async def test_a_statement_over_its_limit_is_cancelled(bouncer: PgBouncer) -> None:
    async with opened(bouncer.url, prepare=keeps_prepared_statements(), statement_timeout_s=0.2) as database:
        await ready(database)
        assert await overrun(database) < 1


async def test_writers_stuck_on_one_row_hold_up_only_that_row(bouncer: PgBouncer, admin: psycopg.Connection) -> None:
    async with opened(bouncer.url, prepare=keeps_prepared_statements(), connections=3) as database:
        await ready(database)
        with admin.transaction():
            admin.execute("SELECT FROM counters WHERE id = 1 FOR UPDATE")
            stuck = [asyncio.ensure_future(database.fetch_one(COUNT_UP, 1)) for _ in range(5)]
            async with asyncio.timeout(2):
                await asyncio.gather(*(database.fetch_one(WRITE, n) for n in range(20)))
            assert not any(call.done() for call in stuck)
        assert sorted(filter(None, await asyncio.gather(*stuck))) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["crash", "safe_shutdown"])
async def test_its_restart_under_load(bouncer: PgBouncer, admin: psycopg.Connection, number: int) -> None:
    async with (
        opened(bouncer.url, prepare=keeps_prepared_statements()) as database,
        under_load(database, admin) as acknowledged,
    ):
        for _ in range(3):
            await more(acknowledged, 100)
            await asyncio.to_thread(bouncer.stop, number)
            await until(lambda: not database.reachable)
            await asyncio.to_thread(bouncer.start)
            await until(lambda: database.reachable)
        await more(acknowledged, 100)


async def test_a_backend_that_dies_behind_it(bouncer: PgBouncer, admin: psycopg.Connection) -> None:
    async with opened(bouncer.url, prepare=keeps_prepared_statements()) as database:
        await ready(database)
        slow = asyncio.ensure_future(database.fetch_one(SLOW, 1, 200))
        with suppress(Unavailable):
            for _ in range(3):
                admin.execute("SELECT pg_terminate_backend(%s)", (await database.fetch_one(BACKEND),))
        assert await slow == 1
        assert await database.fetch_one(BIG, 10) == "x" * 10
        assert await database.fetch_one(WRITE, 10) == 10


async def test_a_changed_result_type_is_survived(bouncer: PgBouncer, admin: psycopg.Connection) -> None:
    """With prepared statements, 1.21 and newer map equal texts to one server statement, so each change takes a text."""
    counter = statement("SELECT value FROM counters WHERE id = %(id)s::integer", id=int, name="counter")
    async with opened(bouncer.url, prepare=keeps_prepared_statements(), connections=4) as database:
        for kind in ("bigint", "integer", "numeric"):
            assert await asyncio.gather(*(database.fetch_one(counter, n) for n in range(1, 100))) == [0] * 99
            await until(lambda: not pending(database))
            admin.execute(f"ALTER TABLE counters ALTER COLUMN value TYPE {kind}".encode())
        assert await asyncio.gather(*(database.fetch_one(counter, n) for n in range(1, 100))) == [0] * 99
        assert database.stats.lost == 0


async def test_prepared_statements_fail_in_the_open(bouncer: PgBouncer) -> None:
    """With DB_PREPARE left on: a right answer or a failure that names the cause, never another's answer. Failures come
    only where PgBouncer does not keep prepared statements.
    """
    async with opened(bouncer.url, prepare=True, connections=8) as database:
        statements = [statement(f"SELECT %(n)s::integer + {m}", n=int, name=f"plus_{m}") for m in range(5)]
        failures = list[InternalError]()
        for _ in range(10):
            calls = [database.fetch_one(statements[n % 5], n) for n in range(200)] + [
                database.fetch_one(WRITE, n) for n in range(50)
            ]
            for n, end in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
                if isinstance(end, BaseException):
                    assert isinstance(end, InternalError)
                    failures.append(end)
                else:
                    assert end == (n + n % 5 if n < 200 else n - 200)
        assert bool(failures) is not keeps_prepared_statements()
        assert {failure.sqlstate for failure in failures} <= {"26000", "42P05"}
        assert all("prepared statement" in str(failure) for failure in failures)
