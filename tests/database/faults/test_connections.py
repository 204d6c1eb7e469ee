"""Connections that stall, end all at once, or are full in both directions."""

import asyncio
import time

import pytest

from service.database import TimedOut, Unavailable, lane_pool, watchdog
from tests.database.ground import BACK, BIG, ECHO, SLOW, WRITE, opened, ready
from tests.support.proxy import Proxy

MEGABYTE = 1 << 20


@pytest.mark.parametrize("prepare", [True, False], ids=["prepared", "unnamed"])
async def test_huge_statements_and_huge_answers_cross_on_one_connection(
    url: str, prepare: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both directions are full at once: 40 MB each way through socket buffers of some hundred kB."""
    monkeypatch.setattr(lane_pool, "STALE_S", 60)  # nothing but the socket's own events moves it on
    async with opened(url, connections=2, prepare=prepare, statement_timeout_s=30, deadline_s=30) as database:
        texts = [chr(ord("a") + n) * (4 * MEGABYTE + n) for n in range(10)]
        async with asyncio.timeout(30):
            answers = await asyncio.gather(*(database.fetch_one(BACK, text) for text in texts))
            assert answers == texts
            assert [
                len(text or "")
                for text in await asyncio.gather(*(database.fetch_one(BIG, MEGABYTE) for _ in range(10)))
            ] == [MEGABYTE] * 10


async def test_reads_outlive_the_end_of_every_connection_at_once(url: str) -> None:
    """They are not sent on, from one broken connection to the next, until their tries are used up."""
    async with Proxy(url) as proxy, opened(proxy.url, connections=9) as database:
        while len(database.reads.lanes) < 8:
            await asyncio.gather(*(database.fetch_one(SLOW, n, 1) for n in range(400)))
        calls = [asyncio.ensure_future(database.fetch_one(SLOW, n, 20)) for n in range(24)]
        await asyncio.sleep(0)
        proxy.cut()
        assert await asyncio.gather(*calls) == list(range(24))


async def test_the_cancel_itself_does_not_get_through(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the connection is taken for dead, once, and the next statement has another."""
    monkeypatch.setattr(watchdog, "CANCEL_GRACE_S", 0.2)
    async with Proxy(url) as proxy, opened(proxy.url, statement_timeout_s=0.2) as database:
        await ready(database)
        proxy.refuses = True
        begin, attempts = time.monotonic(), proxy.accepted
        with pytest.raises(TimedOut):
            await database.fetch_one(SLOW, 1, 5000)
        assert 0.4 <= time.monotonic() - begin < 0.8
        assert proxy.accepted - attempts == 1
        proxy.refuses = False
        assert await database.fetch_one(ECHO, 1) == 1


async def test_a_new_connection_that_stalls_after_its_login_is_given_up_in_time(url: str) -> None:
    """Until then no other is opened. psycopg waits 10 s for a query that was cancelled and does not end."""
    async with Proxy(url) as proxy:

        def stall_first_query(sent: bytes) -> bytes:
            if b"current_schemas" in sent:
                proxy.edit_up = None
                proxy.strand()
            return sent

        proxy.edit_up = stall_first_query
        begin = time.monotonic()
        async with opened(proxy.url, connect_timeout_s=0.5) as database:
            assert await database.fetch_one(ECHO, 1) == 1
            assert time.monotonic() - begin < 2.5
            assert database.stats.unreachable == 1


@pytest.mark.parametrize("reads", [True, False])
async def test_a_connection_on_which_nothing_comes(url: str, monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    """No end, no error, no byte: the bound is the service's own."""
    monkeypatch.setattr(watchdog, "CANCEL_GRACE_S", 0.2)
    async with Proxy(url) as proxy, opened(proxy.url, statement_timeout_s=0.2, deadline_s=0.5) as database:
        await ready(database)
        proxy.flows.clear()
        begin = time.monotonic()
        calls = [database.fetch_one(ECHO, n) if reads else database.fetch_one(WRITE, n) for n in range(20)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - begin < 0.8
        assert all(isinstance(end, (TimedOut, Unavailable)) for end in ends)
        proxy.cut()
        proxy.flows.set()
        assert await database.fetch_one(ECHO, 1) == 1
        assert await database.fetch_one(WRITE, 100) == 100


async def test_one_stalled_connection_holds_up_no_read(url: str) -> None:
    """Those behind the first are sent again elsewhere, and what cannot be known to be lost takes its limit."""
    async with opened(url, connections=4, statement_timeout_s=2) as database:
        await ready(database)
        first = asyncio.ensure_future(database.fetch_one(SLOW, 0, 600))
        begin = time.monotonic()
        assert await asyncio.gather(*(database.fetch_one(ECHO, n) for n in range(30))) == list(range(30))
        assert time.monotonic() - begin < 0.5
        assert database.stats.hedged > 0
        assert await first == 0
