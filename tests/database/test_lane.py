"""What goes wrong on a connection, and that it goes wrong for nobody but whom it concerns."""

import asyncio
import select

import psycopg
import pytest

from service.database import ConstraintViolation, Database, InternalError, Unavailable, lane_pool
from service.database import lane as lane_module
from service.database.lane import Output
from tests.database.ground import (
    BACK,
    BACKEND,
    COUNT_UP,
    ECHO,
    FAILS,
    SLOW,
    SLOW_WRITE,
    WRITE,
    more,
    opened,
    pending,
    ready,
    statement,
)
from tests.support.databases import terminate
from tests.support.proxy import Proxy
from tests.support.waiting import until

MEGABYTE = 1 << 20


@pytest.fixture(params=["prepared", "unnamed"])
def prepare(request: pytest.FixtureRequest) -> bool:
    return request.param == "prepared"


async def test_everybody_gets_their_own_answer(url: str, prepare: bool) -> None:
    async with opened(url, prepare=prepare) as database:
        assert await asyncio.gather(*(database.fetch_one(ECHO, n) for n in range(500))) == list(range(500))


async def test_a_libpq_that_cannot_put_off_writing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before libpq 17 each Sync is written at once, which changes nothing but the cost."""
    assert lane_module.send_sync is not None
    monkeypatch.setattr(lane_module, "send_sync", None)
    calls = [database.fetch_one(FAILS if n % 7 == 3 else ECHO, n) for n in range(60)]
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [end for end in ends if isinstance(end, int)] == [n for n in range(60) if n % 7 != 3]


async def test_a_failing_statement_fails_alone(database: Database, prepare: bool) -> None:
    calls = [database.fetch_one(FAILS if n % 7 == 3 else ECHO, n) for n in range(60)]
    for n, end in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
        if n % 7 == 3:
            assert isinstance(end, InternalError)
            assert end.sqlstate == "22012"
        else:
            assert end == n
    assert database.stats.lost == 0


async def test_a_failing_write_takes_no_neighbour_back(database: Database, admin: psycopg.Connection) -> None:
    """One Sync each: every statement is its own transaction."""
    admin.execute("ALTER TABLE ledger ADD CONSTRAINT ledger_even CHECK (n % 2 = 0)")
    ends = await asyncio.gather(*(database.fetch_one(WRITE, n) for n in range(40)), return_exceptions=True)
    assert [n for n, end in enumerate(ends) if end == n] == list(range(0, 40, 2))
    assert {end.constraint for end in ends if isinstance(end, ConstraintViolation)} == {"ledger_even"}
    assert [n for (n,) in admin.execute("SELECT n FROM ledger ORDER BY n")] == list(range(0, 40, 2))


async def test_an_error_at_commit_comes_after_the_rows_and_wins(database: Database, admin: psycopg.Connection) -> None:
    admin.execute("CREATE TABLE parents (n integer PRIMARY KEY)")
    admin.execute("INSERT INTO parents SELECT generate_series(0, 40, 2)")
    admin.execute(
        "ALTER TABLE ledger ADD CONSTRAINT ledger_n FOREIGN KEY (n) REFERENCES parents DEFERRABLE INITIALLY DEFERRED"
    )
    ends = await asyncio.gather(*(database.fetch_one(WRITE, n) for n in range(40)), return_exceptions=True)
    assert [n for n, end in enumerate(ends) if end == n] == list(range(0, 40, 2))
    assert {end.constraint for end in ends if isinstance(end, ConstraintViolation)} == {"ledger_n"}
    assert database.stats.lost == 0


async def test_cancelled_callers_answers_are_consumed(database: Database) -> None:
    await ready(database)
    calls = [asyncio.ensure_future(database.fetch_one(SLOW, n, 5)) for n in range(40)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert ends[1::2] == list(range(1, 40, 2))
    assert all(isinstance(end, asyncio.CancelledError) for end in ends[::2])
    await until(lambda: pending(database) == 0)
    assert await database.fetch_one(ECHO, 7) == 7


async def test_a_cancelled_call_that_waits_is_never_sent(url: str, admin: psycopg.Connection) -> None:
    async with opened(url) as database:
        calls = [asyncio.ensure_future(database.fetch_one(WRITE, n)) for n in range(4)]
        await asyncio.sleep(0)
        assert database.queued == 4  # no connection is open yet
        calls[1].cancel()
        await asyncio.wait(calls)
    assert sorted(n for (n,) in admin.execute("SELECT n FROM ledger")) == [0, 2, 3]


async def test_a_text_with_nul_is_refused(database: Database) -> None:
    """libpq would send what comes before it."""
    with pytest.raises(InternalError, match="NUL"):
        await database.fetch_one(BACK, "alice\0evil")


# Death ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [0, 1, 4, 5, 30, 61, 100, 150, 203, 400, 900])
async def test_a_connection_cut_after_some_bytes(url: str, admin: psycopg.Connection, left: int) -> None:
    """Statements queued, sent and half answered: each write is acknowledged and there, or refused; none twice."""
    async with Proxy(url) as proxy, opened(proxy.url, connections=2) as database:
        await ready(database)
        calls = [asyncio.ensure_future(database.fetch_one(WRITE, n)) for n in range(40)]
        reads = [asyncio.ensure_future(database.fetch_one(ECHO, n)) for n in range(40)]
        await asyncio.sleep(0)
        proxy.left = left
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert await asyncio.gather(*reads) == list(range(40))  # reads are sent again
        found = [n for (n,) in admin.execute("SELECT n FROM ledger")]
        assert len(found) == len(set(found))
        for n, end in enumerate(ends):
            assert end == n or isinstance(end, Unavailable)
            assert n in found or end != n
        assert database.stats.lost >= 1
        assert await database.fetch_one(WRITE, 1000) == 1000


async def test_a_write_that_was_sent_is_not_repeated(url: str, admin: psycopg.Connection) -> None:
    """Its answer is held back and the connection cut: it happened, once, and the caller is told that nobody knows."""
    async with Proxy(url) as proxy, opened(proxy.url) as database:
        await ready(database)
        passed = proxy.edit = lambda message: b"" if message[:1] in b"2TDC" else message
        call = asyncio.ensure_future(database.fetch_one(WRITE, 1))
        while admin.execute("SELECT count(*) FROM ledger").fetchone() != (1,):
            await asyncio.sleep(0.002)
        proxy.cut()
        proxy.edit = None
        with pytest.raises(Unavailable):
            await call
        assert passed
        assert await database.fetch_one(WRITE, 2) == 2
        assert admin.execute("SELECT array_agg(n ORDER BY n) FROM ledger").fetchone() == ([1, 2],)


async def test_all_backends_terminated_under_load(url: str, admin: psycopg.Connection) -> None:
    async with opened(url) as database:
        await ready(database)

        async def write(n: int) -> int | None:
            try:
                return await database.fetch_one(WRITE, n)
            except Unavailable:
                return None

        stop = asyncio.Event()
        numbers, acknowledged = iter(range(100_000)), []

        async def writer() -> None:
            while not stop.is_set():
                acknowledged.append(await write(next(numbers)))
                assert await database.fetch_one(ECHO, 5) == 5  # a read is never refused for it

        writers = [asyncio.create_task(writer()) for _ in range(16)]
        for _ in range(5):
            await more(acknowledged, 100)
            terminate(admin)
        await more(acknowledged, 100)
        stop.set()
        await asyncio.gather(*writers)
        found = [n for (n,) in admin.execute("SELECT n FROM ledger")]
        assert len(found) == len(set(found))
        assert {n for n in acknowledged if n is not None} <= set(found)
        assert database.stats.lost >= 5
        assert "57" in database.stats.failures


async def test_what_was_answered_before_the_end_counts(url: str, admin: psycopg.Connection) -> None:
    """The results and the end of the connection arrive together: a call whose result is there gets it."""
    async with Proxy(url) as proxy, opened(proxy.url, connections=2) as database:
        await ready(database)
        proxy.flows.clear()
        calls = [asyncio.ensure_future(database.fetch_one(WRITE, n)) for n in range(3)]
        slow = asyncio.ensure_future(database.fetch_one(SLOW_WRITE, 3, 2000))
        await asyncio.sleep(0)
        proxy.flows.set()
        assert await asyncio.gather(*calls) == [0, 1, 2]
        await until(lambda: admin.execute("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchall())
        terminate(admin)
        with pytest.raises(Unavailable) as caught:
            await slow
        assert caught.value.sqlstate == "57P01"


async def test_an_answer_that_a_flush_has_read_is_not_left_lying(
    url: str, admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the socket takes nothing more, libpq reads, and then no event says that there was something to read."""
    monkeypatch.setattr(lane_pool, "STALE_S", 60)  # nobody helps the second past the first
    waits = statement(
        "SELECT %(n)s::integer FROM (SELECT pg_advisory_xact_lock_shared(1)) AS waited", n=int, name="waits"
    )
    huge = statement("SELECT length(%(text)s::text)", text=str, name="huge")
    answered = list[bytes]()

    def note(message: bytes) -> bytes:
        if message[:1] == b"Z":
            answered.append(message)
        return message

    async with Proxy(url) as proxy, opened(proxy.url, connections=2, grace_s=0) as database:
        await ready(database)
        with admin.transaction():
            admin.execute("SELECT pg_advisory_xact_lock(1)")
            first = asyncio.ensure_future(database.fetch_one(waits, 1))
            await until(lambda: admin.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall())
            proxy.takes.clear()
            second = asyncio.ensure_future(database.fetch_one(huge, "x" * 20 * MEGABYTE))
            (lane,) = database.reads.lanes
            await until(lambda: lane.output is Output.BLOCKED)
            proxy.edit = note
            asyncio.get_running_loop().remove_reader(lane.socket)  # it is the flush that reads
        socket = select.poll()
        socket.register(lane.socket, select.POLLIN)

        def nothing_left() -> bool:
            lane.flush()
            return bool(answered) and not socket.poll(0)

        await until(nothing_left)
        assert lane.output is Output.BLOCKED
        proxy.takes.set()
        async with asyncio.timeout(1):
            assert await first == 1
    await asyncio.wait([second])


# Desynchronisation ------------------------------------------------------------------------------------------------

READY = b"Z\0\0\0\x05I"
EXTRA = {
    "ready": READY,
    "rows": b"T\0\0\0\x19\0\x01n\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\x01"
    b"D\0\0\0\x0e\0\x01\0\0\0\x04\0\0\0\x63C\0\0\0\x0dSELECT 1\0",
    "data": b"D\0\0\0\x0e\0\x01\0\0\0\x04\0\0\0\x63",
    "complete": b"C\0\0\0\x0dSELECT 1\0",
    "nonsense": b"?\0\0\0\x04",
    "length": b"C\xff\xff\xff\xff",
    "copy": b"H\0\0\0\x07\0\0\0",
}


@pytest.mark.parametrize("kind", [b"Z", b"C", b"T", b"D", b"1"])
async def test_a_message_that_is_lost_costs_the_connection(url: str, kind: bytes) -> None:
    """Nobody gets another's answer: what cannot be told is closed, and reads go to a fresh connection."""
    async with Proxy(url) as proxy, opened(proxy.url) as database:
        await ready(database)
        lost = []

        def lose_one(message: bytes) -> bytes:
            if message[:1] == kind and not lost:
                lost.append(message)
                return b""
            return message

        proxy.edit = lose_one
        fresh = statement("SELECT %(n)s::integer -- anew", n=int)
        calls = [database.fetch_one(fresh, n) for n in range(30)]
        async with asyncio.timeout(10):
            ends = await asyncio.gather(*calls)
        assert lost
        if kind == b"D":  # this one the protocol has no means to see: a row less
            assert ends.count(None) <= 1
            assert [n for n, end in enumerate(ends) if end not in (n, None)] == []
        else:
            assert ends == list(range(30))
            assert database.stats.lost == 1


@pytest.mark.parametrize("extra", EXTRA)
@pytest.mark.parametrize("after", [b"Z", b"C", b"2"])
async def test_a_message_too_many_costs_the_connection(url: str, extra: str, after: bytes) -> None:
    async with Proxy(url) as proxy, opened(proxy.url) as database:
        await ready(database)
        added = []

        def add_one(message: bytes) -> bytes:
            if message[:1] == after and not added:
                added.append(message)
                return message + EXTRA[extra]
            return message

        proxy.edit = add_one
        async with asyncio.timeout(10):
            ends = await asyncio.gather(*(database.fetch_one(ECHO, n) for n in range(30)))
        assert added
        assert ends == list(range(30))
        # A row between an end and its Sync is the one thing that libpq drops in silence.
        assert database.stats.lost == (0 if (extra, after) == ("data", b"C") else 1)


# Prepared statements ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["DEALLOCATE ALL", "DISCARD ALL"])
async def test_prepared_statements_that_are_gone_are_prepared_again(database: Database, how: str) -> None:
    await ready(database)
    assert await asyncio.gather(*(database.fetch_one(ECHO, n) for n in range(10))) == list(range(10))
    await database.execute(statement(how))
    assert await asyncio.gather(*(database.fetch_one(ECHO, n) for n in range(30))) == list(range(30))
    assert database.stats.lost == 0
    assert database.stats.retried >= 1


async def test_a_plan_that_changed_is_prepared_again(url: str, admin: psycopg.Connection) -> None:
    """ "cached plan must not change result type", while many are in flight: prepared again once, not by each."""
    async with opened(url, connections=2) as database:
        counter = statement("SELECT value FROM counters WHERE id = %(id)s::integer", id=int, name="counter")
        names = statement("SELECT count(*)::integer FROM pg_prepared_statements WHERE name LIKE 'counter%%'")
        assert await asyncio.gather(*(database.fetch_one(counter, n) for n in range(1, 50))) == [0] * 49
        admin.execute("ALTER TABLE counters ALTER COLUMN value TYPE bigint")
        assert await asyncio.gather(*(database.fetch_one(counter, n) for n in range(1, 50))) == [0] * 49
        assert database.stats.lost == 0
        assert database.stats.retried >= 10
        assert await database.fetch_one(names) == 2


async def test_a_statement_that_could_not_be_prepared_is_prepared_later(
    database: Database, admin: psycopg.Connection
) -> None:
    later = statement("SELECT count(*)::integer FROM later")
    with pytest.raises(Unavailable) as caught:
        await database.fetch_one(later)
    assert caught.value.sqlstate == "42P01"
    admin.execute("CREATE TABLE later ()")
    assert await database.fetch_one(later) == 0


# Repeats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
async def test_what_lost_a_conflict_is_sent_again(database: Database, admin: psycopg.Connection, sqlstate: str) -> None:
    admin.execute(
        f"""
        CREATE SEQUENCE attempts;
        CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('attempts') % 3 <> 0 THEN RAISE EXCEPTION 'retry' USING ERRCODE = '{sqlstate}'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER conflict BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION conflict();
    """.encode()
    )
    assert await database.fetch_one(WRITE, 1) == 1
    assert database.stats.retried == 2
    assert admin.execute("SELECT n FROM ledger").fetchall() == [(1,)]


async def test_a_real_deadlock_is_got_over(url: str, admin: psycopg.Connection) -> None:
    admin.execute("""
        CREATE FUNCTION two(a integer, b integer) RETURNS integer LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE counters SET value = value + 1 WHERE id = a;
            PERFORM pg_sleep(0.05);
            UPDATE counters SET value = value + 1 WHERE id = b;
            RETURN a;
        END $$;
        ALTER FUNCTION two SET deadlock_timeout = '20ms';
    """)
    two = statement("/* update */ SELECT two(%(a)s::integer, %(b)s::integer)", a=int, b=int, name="two")
    assert two.writes
    async with opened(url) as database:
        while len(database.writes.lanes) < 2:
            await asyncio.gather(*(database.fetch_one(SLOW_WRITE, n, 1) for n in range(10)))
        assert await asyncio.gather(database.fetch_one(two, 1, 2), database.fetch_one(two, 2, 1)) == [1, 2]
        assert database.stats.retried >= 1
    assert admin.execute("SELECT value FROM counters WHERE id IN (1, 2)").fetchall() == [(2,), (2,)]


async def test_whoever_leaves_while_giving_way_frees_the_row(database: Database, admin: psycopg.Connection) -> None:
    admin.execute("""
        CREATE SEQUENCE attempts;
        CREATE FUNCTION conflict() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('attempts') = 1 THEN RAISE EXCEPTION 'retry' USING ERRCODE = '40001'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER conflict BEFORE UPDATE ON counters FOR EACH ROW EXECUTE FUNCTION conflict();
    """)
    first = asyncio.ensure_future(database.fetch_one(COUNT_UP, 1))
    second = asyncio.ensure_future(database.fetch_one(COUNT_UP, 1))
    await until(lambda: database.stats.retried)
    first.cancel()
    assert await second == 1


async def test_a_statement_that_always_gives_way_is_unavailable(database: Database, admin: psycopg.Connection) -> None:
    admin.execute(
        "CREATE FUNCTION never() RETURNS integer LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END $$"
    )
    with pytest.raises(Unavailable) as caught:
        await database.fetch_one(statement("SELECT never()"))
    assert caught.value.sqlstate == "40001"


async def test_a_new_backend_knows_no_names(database: Database, admin: psycopg.Connection) -> None:
    await ready(database)
    first = await database.fetch_one(BACKEND)
    admin.execute("SELECT pg_terminate_backend(%s)", (first,))
    await until(lambda: database.stats.lost == 1)
    assert await database.fetch_one(ECHO, 3) == 3
    assert await database.fetch_one(BACKEND) != first
    assert await database.fetch_one(COUNT_UP, 5) == 1
