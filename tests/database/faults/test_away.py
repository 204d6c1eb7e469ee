"""The database is away, refuses, comes, or is not what it should be."""

import asyncio
import logging
import time

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from service.database import Unavailable, connections, lane_pool
from tests.database.ground import COUNT_UP, ECHO, WRITE, more, opened, ready, statement, under_load
from tests.support.databases import terminate
from tests.support.proxy import Proxy
from tests.support.waiting import until


async def test_away_at_start_then_coming(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Proxy(url) as proxy:
        proxy.refuses = True
        async with opened(proxy.url) as database:
            assert not database.reachable
            call = asyncio.ensure_future(database.fetch_one(ECHO, 1))
            await until(lambda: proxy.accepted >= 3)
            assert not database.reachable
            proxy.refuses = False
            assert await call == 1
            assert database.reachable
    lines = [record.getMessage() for record in caplog.records if record.name == "service.database"]
    assert len(lines) == 2  # said once, and once that it is over
    assert lines[0].startswith("the database cannot be reached: ")
    assert lines[1] == "the database is reachable again"


async def test_it_comes_back_though_nobody_asks(url: str) -> None:
    async with Proxy(url) as proxy:
        proxy.refuses = True
        async with opened(proxy.url) as database:
            await until(lambda: proxy.accepted >= 2)
            proxy.refuses = False
            await until(lambda: database.reachable)


async def test_away_for_long_calls_fail_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_pool, "MAX_DOWN_S", 0.2)
    async with Proxy(url) as proxy:
        proxy.refuses = True
        async with opened(proxy.url) as database:
            begin = time.monotonic()
            with pytest.raises(Unavailable, match="cannot be reached"):
                await database.fetch_one(ECHO, 1)
            assert 0.2 <= time.monotonic() - begin < 1
            begin = time.monotonic()
            with pytest.raises(Unavailable, match="cannot be reached"):
                await database.fetch_one(ECHO, 1)
            assert time.monotonic() - begin < 0.01
            proxy.refuses = False
            await until(lambda: database.reachable)
            assert await database.fetch_one(ECHO, 1) == 1


async def test_a_suspended_compute_is_woken_by_a_call_and_by_nothing_else(
    url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HOUSEKEEPING_S", 0.02)
    async with Proxy(url) as proxy, opened(proxy.url) as database:
        await ready(database)
        terminate(admin)
        await until(lambda: database.lanes == 0)
        accepted = proxy.accepted
        await asyncio.sleep(0.3)
        assert proxy.accepted == accepted
        assert database.reachable
        proxy.refuses = True  # it wakes, which takes a moment
        call = asyncio.ensure_future(database.fetch_one(WRITE, 1))
        await until(lambda: proxy.accepted > accepted + 2)
        proxy.refuses = False
        assert await call == 1


async def test_the_cluster_restarts_under_load(url: str, admin: psycopg.Connection) -> None:
    """Refused and cut for a moment: what was accepted is there once, and reads only waited."""
    async with Proxy(url) as proxy, opened(proxy.url) as database, under_load(database, admin) as acknowledged:
        for _ in range(3):
            await more(acknowledged, 50)
            proxy.refuses = True
            proxy.cut()
            await asyncio.sleep(0.1)
            proxy.refuses = False
        await more(acknowledged, 50)


async def test_a_wrong_password_is_said_once_and_tried_on(
    url: str, admin: psycopg.Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trust asks for no password here, so a role that does not exist stands for it: the same class of SQLSTATE."""
    monkeypatch.setattr(lane_pool, "MAX_DOWN_S", 0.1)
    async with opened(make_conninfo(url, user="stranger_to_us")) as database:
        with pytest.raises(Unavailable):
            await database.fetch_one(ECHO, 1)
        await until(lambda: database.stats.unreachable >= 3)
        assert not database.reachable
        lines = [record.getMessage() for record in caplog.records if record.name == "service.database"]
        assert len(lines) == 1
        assert 'role "stranger_to_us" does not exist' in lines[0]
        admin.execute("CREATE ROLE stranger_to_us LOGIN")
        try:
            await until(lambda: database.reachable)
            assert await database.fetch_one(ECHO, 1) == 1
        finally:
            admin.execute("DROP ROLE stranger_to_us")


async def test_no_room_for_one_connection_more_is_no_outage(url: str, admin: psycopg.Connection) -> None:
    """The lanes that are open serve on, and the probes say that all is well."""
    admin.execute("CREATE ROLE narrow LOGIN CONNECTION LIMIT 2")
    admin.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO narrow; GRANT ALL ON SCHEMA public TO narrow")
    try:
        async with opened(make_conninfo(url, user="narrow"), connections=8) as database:
            await ready(database)
            for _ in range(5):
                await asyncio.gather(*(database.fetch_one(WRITE, n) for n in range(200)))
            assert database.stats.unreachable >= 1
            assert database.reachable
            assert database.lanes == 2
    finally:
        terminate(admin)
        admin.execute("DROP OWNED BY narrow; DROP ROLE narrow")


async def test_a_server_that_refuses_writes_is_looked_for_elsewhere(
    url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No longer the primary: its lanes are let go, in a moment, and new ones find the new primary."""
    monkeypatch.setattr(connections, "HOUSEKEEPING_S", 0.05)
    name = admin.info.dbname
    admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    try:
        async with opened(url) as database:
            with pytest.raises(Unavailable) as caught:
                await database.fetch_one(WRITE, 1)
            assert caught.value.sqlstate == "25006"
            admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off".encode())

            async def promoted() -> bool:
                try:
                    return await database.fetch_one(WRITE, 2) == 2
                except Unavailable:
                    return False

            end = time.monotonic() + 5
            while not await promoted():
                assert time.monotonic() < end
    finally:
        admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())


async def test_statements_are_compared_with_the_schema_until_they_fit(
    url: str, admin: psycopg.Connection, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HOUSEKEEPING_S", 0.05)
    missing = statement("SELECT later.n FROM later", name="missing")
    async with opened(url, verify=[ECHO, missing, COUNT_UP]) as database:
        await until(lambda: database.reachable and "later" in (database.mismatch or ""))
        assert database.mismatch == 'missing: relation "later" does not exist'
        assert await database.fetch_one(ECHO, 1) == 1
        terminate(admin)  # a new connection looks too
        await until(lambda: database.stats.lost)
        admin.execute("CREATE TABLE later (n integer)")
        await until(lambda: database.mismatch is None)
        assert await database.fetch_one(missing) is None
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1


async def test_a_missing_privilege_is_unavailable_until_it_is_granted(
    url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HOUSEKEEPING_S", 0.05)
    admin.execute("CREATE ROLE nobody LOGIN")
    admin.execute("GRANT USAGE ON SCHEMA public TO nobody; GRANT INSERT, SELECT ON ledger TO nobody")
    try:
        async with opened(make_conninfo(url, user="nobody"), verify=[WRITE]) as database:
            await until(lambda: database.mismatch is None)
            assert await database.fetch_one(WRITE, 1) == 1
            admin.execute("REVOKE INSERT ON ledger FROM nobody")
            with pytest.raises(Unavailable) as caught:
                await database.fetch_one(WRITE, 2)
            assert caught.value.sqlstate == "42501"
            assert database.mismatch == "write: permission denied for table ledger"
            admin.execute("GRANT INSERT ON ledger TO nobody")
            await until(lambda: database.mismatch is None)
            assert await database.fetch_one(WRITE, 2) == 2
    finally:
        terminate(admin)
        admin.execute("DROP OWNED BY nobody; DROP ROLE nobody")
