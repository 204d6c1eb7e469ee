"""Who is sent again after an error, and whose attempts that uses up: cancels, locked tables, plans that changed."""

import asyncio
import time

import psycopg
import pytest

from service.database import ConstraintViolation, Database, TimedOut, Unavailable, connections, current_caller
from service.database.lane import LaneState
from tests.database.ground import COUNT_UP, ECHO, SLOW, SLOW_WRITE, WRITE, opened, pending, ready, statement
from tests.support.proxy import Proxy
from tests.support.text_mapping_pooler import TextMappingPooler
from tests.support.waiting import until

RUNNING = (
    "SELECT {} FROM pg_stat_activity WHERE query LIKE '%pg_sleep(%' AND state = 'active' AND pid <> pg_backend_pid()"
    " AND datname = current_database()"
)
COUNTER = statement("SELECT value FROM counters WHERE id = %(id)s::integer", id=int, name="counter")


@pytest.mark.parametrize("locked_s", [0.3, pytest.param(1.5, marks=pytest.mark.slow)])
async def test_a_locked_table_is_waited_for(url: str, admin: psycopg.Connection, locked_s: float) -> None:
    """The lock is met by the Parse, before any statement is prepared; each cancel then hits that Parse."""
    async with opened(url, connections=6, statement_timeout_s=5) as database:
        await database.fetch_one(ECHO, 1)
        with admin.transaction():
            admin.execute("LOCK TABLE ledger")
            calls = [database.fetch_one(WRITE, n) for n in range(20)]
            lone = statement("INSERT INTO ledger VALUES (%(n)s::integer) RETURNING n", n=int, name="lone")
            calls += [database.fetch_one(lone, n) for n in range(20, 40)]
            await asyncio.sleep(locked_s)
        assert await asyncio.gather(*calls) == list(range(40))
    assert admin.execute("SELECT count(*), count(DISTINCT n) FROM ledger").fetchone() == (40, 40)


async def test_a_locked_table_is_a_timeout_and_nothing_else(url: str, admin: psycopg.Connection) -> None:
    async with opened(url, connections=4, statement_timeout_s=0.3, deadline_s=5) as database:
        await database.fetch_one(ECHO, 1)
        with admin.transaction():
            admin.execute("LOCK TABLE ledger")
            begin = time.monotonic()
            calls = [database.fetch_one(WRITE, n) for n in range(3)]
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(end, TimedOut) for end in ends), ends
            assert time.monotonic() - begin >= 0.3
        await until(lambda: not pending(database))
        assert await database.fetch_one(WRITE, 9) == 9
    assert admin.execute("SELECT n FROM ledger").fetchall() == [(9,)]


async def test_the_waits_of_retried_calls_hold_no_time_at_the_database(
    database: Database, admin: psycopg.Connection
) -> None:
    """Each attempt is counted with its own wait: neither the attempts before it nor the backoff is one."""
    admin.execute("""
        CREATE SEQUENCE attempts;
        CREATE FUNCTION slow_conflict() RETURNS integer LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_sleep(0.2);
            IF nextval('attempts') < 3 THEN RAISE EXCEPTION 'retry' USING ERRCODE = '40001'; END IF;
            RETURN 1;
        END $$;
    """)
    await ready(database)
    timed = list[tuple[float, float]]()

    class Noted:
        def timed(self, statement: str, wait_s: float, database_s: float) -> None:
            timed.append((wait_s, database_s))

    token = current_caller.set(Noted())
    try:
        assert await database.fetch_one(statement("SELECT slow_conflict()", name="slow_conflict")) == 1
    finally:
        current_caller.reset(token)
    assert len(timed) == 3
    # The loop's clock goes by the millisecond. With the attempt before in it, a wait would be 0.2 s or more.
    assert all(wait_s < 0.19 and database_s >= 0.199 for wait_s, database_s in timed), timed


async def test_members_of_a_group_that_failed_at_its_commit_keep_their_order(
    url: str, admin: psycopg.Connection
) -> None:
    """Each goes alone then, the oldest first."""
    admin.execute("CREATE TABLE parents (n integer PRIMARY KEY); INSERT INTO parents SELECT generate_series(0, 8)")
    admin.execute(
        "ALTER TABLE ledger ADD CONSTRAINT ledger_n FOREIGN KEY (n) REFERENCES parents DEFERRABLE INITIALLY DEFERRED"
    )
    async with opened(url, connections=2) as database:
        await ready(database)
        ends = await asyncio.gather(*(database.fetch_one(WRITE, n) for n in range(10)), return_exceptions=True)
        assert isinstance(ends[9], ConstraintViolation)
    found = [n for (n,) in admin.execute("SELECT n FROM ledger ORDER BY ctid") if n >= 0]
    assert found == list(range(9))


async def test_a_cancel_that_hit_nothing_is_not_remembered(database: Database, admin: psycopg.Connection) -> None:
    """Sent when its statement had just ended. What an administrator cancels later stays cancelled."""
    await ready(database)
    (lane,) = database.writes.lanes
    database.watchdog.cancel(lane)
    assert lane.state is LaneState.CANCELLING
    await until(lambda: lane.state is LaneState.OPEN)
    call = database.fetch_one(SLOW_WRITE, 1, 5000)
    await until(lambda: admin.execute(RUNNING.format("pg_cancel_backend(pid)").encode()).fetchall())
    with pytest.raises(TimedOut):
        await call
    assert database.stats.retried == 0


async def test_nothing_is_sent_while_a_cancel_could_hit_it(url: str) -> None:
    """The cancel hangs on its way: what comes meanwhile goes on another lane."""
    async with Proxy(url) as proxy, opened(proxy.url, connections=3) as database:
        await ready(database)
        (lane,) = database.reads.lanes
        flows, proxy.flows = proxy.flows, asyncio.Event()  # those that connect from now on wait
        database.watchdog.cancel(lane)
        await until(lambda: proxy.accepted >= 3)
        proxy.flows, hanging = flows, proxy.flows
        for n in range(20):
            assert await database.fetch_one(ECHO, n) == n
            assert not lane.in_flight
        hanging.set()
        await until(lambda: lane.state is not LaneState.CANCELLING)


async def test_a_changed_plan_behind_a_pooler_that_maps_texts(url: str, admin: psycopg.Connection) -> None:
    """Another name for the same text changes nothing there: another text does, also for a service that starts anew."""
    async with TextMappingPooler(url) as pooler:
        async with opened(pooler.url, connections=2) as database:
            for kind in ("bigint", "integer", "numeric"):
                assert await asyncio.gather(*(database.fetch_one(COUNTER, n) for n in range(1, 30))) == [0] * 29
                await until(lambda: not pending(database))  # the event loop that ALTER blocks passes on hedged reads
                admin.execute(f"ALTER TABLE counters ALTER COLUMN value TYPE {kind}".encode())
            assert await asyncio.gather(*(database.fetch_one(COUNTER, n) for n in range(1, 30))) == [0] * 29
            assert database.stats.lost == 0
        texts = [text for text in pooler.texts if b"counters" in text]
        assert len(set(texts)) == len(texts) == 4
        assert {text.rstrip() for text in texts} == {texts[0].rstrip()}


async def test_a_statement_that_the_server_lost_behind_a_pooler(url: str, admin: psycopg.Connection) -> None:
    """DISCARD ALL that the pooler does not notice."""
    async with TextMappingPooler(url) as pooler, opened(pooler.url, connections=2) as database:
        assert await database.fetch_one(ECHO, 1) == 1
        await database.execute(statement("DISCARD ALL", name="discard"))
        assert await asyncio.gather(*(database.fetch_one(ECHO, n) for n in range(20))) == list(range(20))


async def test_a_changed_plan_is_known_by_its_code_not_its_words(url: str, admin: psycopg.Connection) -> None:
    """As a server with lc_messages=de_DE says it."""
    german = "gecachter Plan darf den Ergebnistyp nicht ändern".encode()

    def translate(message: bytes) -> bytes:
        if message[:1] != b"E":
            return message
        body = message[5:].replace(b"cached plan must not change result type", german)
        return b"E" + (len(body) + 4).to_bytes(4) + body

    async with Proxy(url) as proxy, opened(proxy.url, connections=2) as database:
        assert await database.fetch_one(COUNTER, 1) == 0
        proxy.edit = translate
        await until(lambda: not pending(database))
        admin.execute("ALTER TABLE counters ALTER COLUMN value TYPE bigint")
        assert await asyncio.gather(*(database.fetch_one(COUNTER, n) for n in range(1, 30))) == [0] * 29


@pytest.mark.parametrize(
    ("sqlstate", "fits"),
    [("22004", True), ("0A000", True), ("XX000", True), ("42P01", False), ("42883", False), ("42501", False)]
    + [(code, False) for code in ("08006", "53300", "57P03", "28P01", "3D000")],
)
async def test_what_planning_with_nulls_says(
    url: str, monkeypatch: pytest.MonkeyPatch, sqlstate: str, fits: bool
) -> None:
    """Only class 42 is a mismatch. After a lost connection or a shortage the check runs again. Citus' own errors
    mean that the statement fits.
    """
    monkeypatch.setattr(connections, "HOUSEKEEPING_S", 0.1)
    planned = statement("SELECT 1", name="planned")
    error = b"SERROR\0VERROR\0C" + sqlstate.encode() + b"\0Msaid no\0\0"
    asked = 0

    def answer(message: bytes) -> bytes:
        nonlocal asked
        if message[:1] == b"C" and message[5:].startswith(b"EXPLAIN"):
            asked += 1
            return b"E" + (len(error) + 4).to_bytes(4) + error
        return message

    async with Proxy(url) as proxy:
        proxy.edit = answer
        async with opened(proxy.url, verify=[planned]) as database:
            await until(lambda: asked)
            if fits:
                await until(lambda: database.mismatch is None)
            else:
                await until(lambda: asked >= 3)
                assert database.mismatch is not None
                assert ("said no" in database.mismatch) == sqlstate.startswith("42")
                proxy.edit = None
                await until(lambda: database.mismatch is None)


@pytest.mark.parametrize("where", ["role", "environment"])
async def test_text_is_utf8_whatever_the_role_or_the_environment_asks_for(
    url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    name = admin.info.dbname
    if where == "role":
        admin.execute(f"ALTER DATABASE {name} SET client_encoding = 'LATIN1'".encode())
    else:
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    text = "Größe, Привет, 東京"
    back = statement("SELECT %(text)s::text || char_length(%(text)s::text)", text=str, name="back")
    try:
        async with opened(url) as database:
            assert await database.fetch_one(back, text) == f"{text}{len(text)}"
    finally:
        admin.execute(f"ALTER DATABASE {name} RESET client_encoding".encode())


@pytest.mark.parametrize(
    "setting",
    [
        "idle_session_timeout = '100ms'",
        "transaction_timeout = '3s'",
        "default_transaction_isolation = 'serializable'",
        "standard_conforming_strings = off",
        "bytea_output = 'escape'",
        "IntervalStyle = 'iso_8601'",
        "DateStyle = 'German, DMY'",
        "TimeZone = 'Asia/Kathmandu'",
        "plan_cache_mode = 'force_generic_plan'",
    ],
)
async def test_what_a_database_carries_changes_nothing(url: str, admin: psycopg.Connection, setting: str) -> None:
    name = admin.info.dbname
    key = setting.partition(" ")[0]
    admin.execute(f"ALTER DATABASE {name} SET {setting}".encode())
    try:
        async with opened(url, connections=3) as database:
            for round_ in range(2):
                ends = await asyncio.gather(
                    *(database.fetch_one(WRITE, n) for n in range(10)),
                    *(database.fetch_one(ECHO, n) for n in range(10)),
                    *(database.fetch_one(COUNT_UP, n) for n in range(1, 11)),
                )
                assert ends == [*range(10), *range(10), *[round_ + 1] * 10]
                if key == "idle_session_timeout":
                    await until(lambda: database.lanes == 0)
            assert database.reachable
    finally:
        admin.execute(f"ALTER DATABASE {name} RESET {key}".encode())


async def test_a_transaction_timeout_is_a_timeout(url: str, admin: psycopg.Connection) -> None:
    """PostgreSQL ends the session with it; what shared its commit is sent again."""
    name = admin.info.dbname
    admin.execute(f"ALTER DATABASE {name} SET transaction_timeout = '300ms'".encode())
    try:
        async with opened(url, connections=3) as database:
            with pytest.raises(TimedOut) as caught:
                await database.fetch_one(SLOW, 1, 3000)
            assert caught.value.sqlstate == "25P04"
            with pytest.raises(TimedOut):
                await database.fetch_one(SLOW_WRITE, 1, 3000)
            assert await database.fetch_one(WRITE, 1) == 1
    finally:
        admin.execute(f"ALTER DATABASE {name} RESET transaction_timeout".encode())


async def test_a_commit_that_was_not_replicated_is_not_confirmed(url: str, admin: psycopg.Connection) -> None:
    """A cancel that hits the wait for a standby ends the wait: the write is done here, and may be lost with this
    server.
    """
    name = admin.info.dbname
    admin.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = 'on'".encode())
    admin.execute("SELECT pg_reload_conf()")
    try:
        async with opened(url, connections=3, statement_timeout_s=0.3) as database:
            await database.fetch_one(ECHO, 1)
            await until(lambda: admin.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",))
            with pytest.raises((TimedOut, Unavailable)):
                await database.fetch_one(WRITE, 1)
    finally:
        admin.execute("SET synchronous_commit = local")
        admin.execute("ALTER SYSTEM RESET synchronous_standby_names")
        admin.execute(f"ALTER DATABASE {name} RESET synchronous_commit".encode())
        admin.execute("SELECT pg_reload_conf()")
