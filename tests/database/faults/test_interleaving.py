"""Anything at any time: calls, failing ones, big ones, slow ones, callers who leave, connections that break.

Whatever the order, every caller gets its own answer or its own failure, no write happens twice, what was acknowledged
is there, what surely failed is not, and nothing is left over.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.database import Database, InternalError, TimedOut, Unavailable
from tests.database.ground import BIG, COUNT_UP, ECHO, FAILS, SLOW, SLOW_WRITE, WRITE, opened, pending, statement
from tests.support.databases import terminate
from tests.support.proxy import Proxy

CONNECTIONS = 4
LIMIT_S = 0.1

# One step: what happens, with which number, and after how many ms the next comes (0: at once, in the same turn).
pauses = st.sampled_from([0, 0, 0, 0, 1, 3, 12, 40])
steps = st.tuples(
    st.sampled_from(
        ["read"] * 6
        + ["write"] * 6
        + ["count"] * 4
        + ["big", "fail", "slow read", "slow write", "too slow", "too slow write", "leave", "leave"]
        + ["terminate", "terminate one", "cut", "cut soon", "forget", "refuse", "cancel"]
    ),
    st.integers(0, 2000),
    pauses,
)


class World:
    """One run: its calls, and how each ended."""

    def __init__(self, database: Database, proxy: Proxy, admin: psycopg.Connection) -> None:
        self.database, self.proxy, self.admin = database, proxy, admin
        self.asked: list[tuple[str, int, asyncio.Task[Any]]] = []

    def step(self, kind: str, n: int) -> None:
        serial = len(self.asked)
        match kind:
            case "read":
                self._ask(kind, serial, self.database.fetch_one(ECHO, serial))
            case "write":
                self._ask(kind, serial, self.database.fetch_one(WRITE, serial))
            case "count":
                self._ask(kind, n % 3 + 1, self.database.fetch_one(COUNT_UP, n % 3 + 1))
            case "big":
                self._ask(kind, n * 100, self.database.fetch_one(BIG, n * 100))
            case "fail":
                self._ask(kind, 0, self.database.fetch_one(FAILS, serial))
            case "slow read":
                self._ask("read", serial, self.database.fetch_one(SLOW, serial, n % 50))
            case "slow write":
                self._ask("write", serial, self.database.fetch_one(SLOW_WRITE, serial, n % 50))
            case "too slow":
                self._ask(kind, serial, self.database.fetch_one(SLOW, serial, 60_000))
            case "too slow write":
                self._ask(kind, serial, self.database.fetch_one(SLOW_WRITE, serial, 60_000))
            case "leave":
                if self.asked:
                    self.asked[n % serial][2].cancel()
            case "terminate":
                self.admin.execute(_END)
            case "terminate one":
                self.admin.execute(_END + " LIMIT 1")
            case "cut":
                self.proxy.cut()
            case "cut soon":
                self.proxy.left = n
            case "forget":
                self._ask("forget", serial, self.database.execute(FORGET))
            case "refuse":
                self.proxy.refuses = not self.proxy.refuses
            case "cancel":  # comes when it comes
                for lane in self.database.reads.lanes + self.database.writes.lanes:
                    if lane.in_flight:
                        self.database.watchdog.cancel(lane)

    def _ask(self, kind: str, n: int, call: Any) -> None:
        self.asked.append((kind, n, asyncio.ensure_future(call)))


_END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'tasks-service'"
)
FORGET = statement("DEALLOCATE ALL", name="forget")


async def run(url: str, admin: psycopg.Connection, happenings: Sequence[tuple[str, int, int]], prepare: bool) -> None:
    terminate(admin)  # what was cut off while it slept would sleep on
    admin.execute("TRUNCATE ledger; UPDATE counters SET value = 0")
    async with (
        Proxy(url) as proxy,
        opened(
            proxy.url, connections=CONNECTIONS, prepare=prepare, statement_timeout_s=LIMIT_S, deadline_s=0.6, grace_s=0
        ) as database,
    ):
        world = World(database, proxy, admin)
        for kind, n, pause_ms in happenings:
            world.step(kind, n)
            if pause_ms:
                await asyncio.sleep(pause_ms / 1000)
            assert database.connections.opened <= CONNECTIONS
        proxy.refuses = False
        async with asyncio.timeout(10):
            ends = await asyncio.gather(*(task for _, _, task in world.asked), return_exceptions=True)
            while pending(database):
                await asyncio.sleep(0.005)
        assert not database.rows.held
        assert await database.fetch_one(ECHO, 77) == 77
    check(admin, [(kind, n, end) for (kind, n, _), end in zip(world.asked, ends, strict=True)])


def check(admin: psycopg.Connection, ends: list[tuple[str, int, Any]]) -> None:
    found = [n for (n,) in admin.execute("SELECT n FROM ledger")]
    assert len(found) == len(set(found))  # none twice
    for kind, n, end in ends:
        if kind == "fail" and isinstance(end, InternalError):
            assert end.sqlstate == "22012"
        elif isinstance(end, BaseException):
            assert isinstance(end, (Unavailable, TimedOut, asyncio.CancelledError)), (kind, end)
        elif kind == "big":
            assert end == "x" * n
        elif kind in ("read", "write"):
            assert end == n
        else:
            assert kind in ("count", "forget"), kind
        if kind == "write" and end == n:
            assert n in found  # what was acknowledged is there
        if kind == "too slow write":
            assert n not in found
    for row in (1, 2, 3):
        answers = [end for kind, n, end in ends if kind == "count" and n == row and isinstance(end, int)]
        unknown = sum(kind == "count" and n == row for kind, n, _ in ends) - len(answers)
        (value,) = admin.execute("SELECT value FROM counters WHERE id = %s", (row,)).fetchone() or (0,)
        assert len(answers) == len(set(answers))  # each count was given to one caller
        assert len(answers) <= value <= len(answers) + unknown


def examples(number: int, **how: Any) -> settings:
    return settings(
        max_examples=number,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        **how,
    )


happenings = st.lists(steps, min_size=5, max_size=60)


@examples(15, derandomize=True)
@given(happenings=happenings, prepare=st.booleans())
async def test_every_caller_gets_its_own(
    url: str, admin: psycopg.Connection, happenings: list[tuple[str, int, int]], prepare: bool
) -> None:
    await run(url, admin, happenings, prepare)


@pytest.mark.slow
@examples(500)
@given(happenings=happenings, prepare=st.booleans())
async def test_every_caller_gets_its_own_in_many_more_ways(
    url: str, admin: psycopg.Connection, happenings: list[tuple[str, int, int]], prepare: bool
) -> None:
    await run(url, admin, happenings, prepare)
