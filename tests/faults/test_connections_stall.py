"""Connections on which nothing comes any more, and a compute that suspends: a proxy before PostgreSQL makes both."""

import asyncio
import time

import pytest

from tests.faults.conftest import Serve
from tests.support.http import AsyncClient
from tests.support.ledger import Load
from tests.support.proxy import Proxy

CLIENTS = 8


@pytest.fixture
def limits() -> dict[str, str]:
    return {"STATEMENT_TIMEOUT_MS": "500", "REQUEST_DEADLINE_MS": "2500", "CONNECT_TIMEOUT_S": "2"}


async def test_connections_cut_under_load_lose_no_acknowledged_write(
    url: str, serve: Serve, limits: dict[str, str]
) -> None:
    async with Proxy(url) as proxy:
        service = await asyncio.to_thread(serve, proxy.url, **limits)
        async with Load(service.url, CLIENTS) as load:
            for _ in range(5):
                await load.more(30)
                proxy.cut()
            await load.more(30)
        load.check(url)
        assert load.cut == load.refused == len(load.untaken) == 0
        assert load.slowest_s < 1
        await asyncio.to_thread(service.stop)


@pytest.mark.parametrize("busy", [True, False], ids=["under load", "idle"])
async def test_silent_connections_are_replaced(url: str, serve: Serve, limits: dict[str, str], busy: bool) -> None:
    """A gateway forgot them: nothing comes, and nobody is told. New ones are well. The bound is the service's own."""
    async with Proxy(url) as proxy:
        service = await asyncio.to_thread(serve, proxy.url, **limits)
        load = Load(service.url, CLIENTS)
        async with load:
            await load.more(30)
            if not busy:
                await load.pause()
            proxy.strand()
            load.go_on()
            begin = time.monotonic()
            await load.more(30)
            assert time.monotonic() - begin < 3.5  # the statement limit, a second for its cancel, and what it takes
        load.check(url)
        assert load.cut == load.refused == len(load.untaken) == 0
        assert load.slowest_s < 3.5
        service.logged(
            message="a connection to the database was lost: PostgreSQL did not answer within the statement limit"
        )
        await asyncio.to_thread(service.stop)


async def test_a_database_that_stalls_holds_nobody_longer_than_the_deadline(
    url: str, serve: Serve, limits: dict[str, str]
) -> None:
    async with Proxy(url) as proxy:
        service = await asyncio.to_thread(serve, proxy.url, **limits)
        async with Load(service.url, CLIENTS) as load:
            await load.more(30)
            proxy.flows.clear()
            await load.until(lambda: load.statuses[503] + load.statuses[504] >= CLIENTS, within_s=10)
            proxy.strand()  # those who hung stay so; new ones are well
            await load.more(30, within_s=6)
        load.check(url)
        assert load.slowest_s < 3.5
        assert load.cut == load.refused == len(load.untaken) == 0
        await asyncio.to_thread(service.stop)


async def test_requests_wait_for_a_compute_that_takes_2_s_to_wake(url: str, serve: Serve) -> None:
    async with Proxy(url) as proxy:
        service = await asyncio.to_thread(serve, proxy.url)
        async with AsyncClient(service.url) as client, AsyncClient(service.url) as probe:
            created = await client.send("POST", "/api/u/tasks", {"title": "before"})
            assert created.status == 201
            proxy.refuses = True
            proxy.cut()  # it suspends, and its connections with it
            accepted = proxy.accepted
            for _ in range(6):
                await asyncio.sleep(0.5)
                assert (await probe.send("GET", "/readyz")).status == 200
                assert (await probe.send("GET", "/livez")).status == 200
                assert (await probe.send("GET", "/metrics")).status == 200
            assert proxy.accepted == accepted, "the probes woke it"

            async def wakes() -> None:
                while proxy.accepted == accepted:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(2)
                proxy.refuses = False

            waking = asyncio.create_task(wakes())
            begin = time.monotonic()
            answer = await client.send("POST", "/api/u/tasks", {"title": "after"})
            assert (answer.status, 2 < time.monotonic() - begin < 3) == (201, True), answer
            await waking
            assert len((await client.send("GET", "/api/u/tasks")).json()) == 2
        await asyncio.to_thread(service.stop)
