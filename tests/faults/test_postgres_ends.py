"""PostgreSQL is killed, stopped, restarted or throws everybody out, under load."""

import asyncio
import os
import signal
import time
from collections.abc import Callable

import psycopg
import pytest

from service.operations.embedded import Embedded
from tests.faults.conftest import Serve
from tests.support.databases import terminate
from tests.support.http import AsyncClient
from tests.support.ledger import Load

CLIENTS = 16
BACK_S = 2.0  # after the database is back


def kill(cluster: Embedded) -> None:
    assert cluster.pid is not None
    os.kill(cluster.pid, signal.SIGKILL)


def shut_down(number: int) -> Callable[[Embedded], None]:
    def send(cluster: Embedded) -> None:
        assert cluster.pid is not None
        os.kill(cluster.pid, number)

    return send


async def gone(cluster: Embedded) -> None:
    while cluster.pid is not None:
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(kill, id="kill -9 of the postmaster"),
        pytest.param(shut_down(signal.SIGQUIT), id="immediate shutdown"),
        pytest.param(shut_down(signal.SIGINT), id="fast shutdown"),
    ],
)
async def test_restart_of_postgresql_loses_no_acknowledged_write(
    victim: Embedded, url: str, serve: Serve, end: Callable[[Embedded], None]
) -> None:
    service = serve(url)
    async with Load(service.url, CLIENTS) as load:
        for _ in range(2):
            await load.more(100)
            end(victim)
            await gone(victim)
            async with AsyncClient(service.url) as probe:
                assert (await probe.send("GET", "/livez", timeout_s=0.5)).status == 200
            await asyncio.sleep(0.3)  # away for a while
            await asyncio.to_thread(victim.ensure_running)
            back = time.monotonic()
            await load.more(1, within_s=BACK_S)
            await load.more(100)
            assert time.monotonic() - back < 2 * BACK_S
    load.check(url)
    assert load.cut == load.refused == len(load.untaken) == 0
    assert load.slowest_s < 5
    said = service.logged(message="the database is reachable again")
    assert said["level"] == "warning"


async def test_long_outage_is_503_at_once_and_over_within_a_second(victim: Embedded, url: str, serve: Serve) -> None:
    service = serve(url)
    async with Load(service.url, CLIENTS) as load:
        await load.more(50)
        kill(victim)
        await gone(victim)
        async with AsyncClient(service.url) as probe:
            while (await probe.send("GET", "/readyz")).status == 200:
                await asyncio.sleep(0.01)
            answer = await probe.send("GET", "/readyz")
            assert answer.json() == {"error": "The database cannot be reached"}
            assert (await probe.send("GET", "/livez")).status == 200
            end = time.monotonic() + 6  # the service's patience, and a little
            took = 10.0
            while took > 0.05 and time.monotonic() < end:
                begin = time.monotonic()
                assert (await probe.send("GET", "/api/somebody/tasks")).status == 503
                took = time.monotonic() - begin
            assert took < 0.05
        await asyncio.to_thread(victim.ensure_running)
        await load.more(1, within_s=BACK_S)
    load.check(url)
    assert load.cut == load.refused == len(load.untaken) == 0


async def test_terminated_sessions_lose_no_acknowledged_write(victim: Embedded, url: str, serve: Serve) -> None:
    service = serve(url)
    async with Load(service.url, CLIENTS) as load:
        with psycopg.connect(url, autocommit=True) as admin:
            for _ in range(5):
                await load.more(50, within_s=BACK_S)
                terminate(admin)
            await load.more(50, within_s=BACK_S)
    load.check(url)
    assert load.cut == load.refused == len(load.untaken) == 0
    assert load.slowest_s < BACK_S
    service.logged(logger="service.database", level="warning", sqlstate="57P01")
