"""More requests than the service may work on at once, and rows and statements that keep others waiting."""

import asyncio
import time

import psycopg

from tests.faults.conftest import Serve
from tests.support.databases import until_blocked
from tests.support.http import AsyncClient, Response

DEADLINE_S = 1.5
LIMITS = {"STATEMENT_TIMEOUT_MS": "1000", "REQUEST_DEADLINE_MS": "1500"}


async def timed(client: AsyncClient, *request: object) -> tuple[float, Response]:
    begin = time.monotonic()
    answer = await client.send(*request)  # pyright: ignore[reportArgumentType]
    return time.monotonic() - begin, answer


async def test_above_the_limit_it_is_503_at_once_and_what_is_accepted_meets_its_deadline(
    url: str, serve: Serve
) -> None:
    """Writers of one row that somebody locked fill the service; others come all the while."""
    service = serve(url, MAX_IN_FLIGHT="20", MAX_IN_FLIGHT_PER_USER="20", **LIMITS)
    writers = [AsyncClient(service.url) for _ in range(20)]
    others = [AsyncClient(service.url) for _ in range(40)]
    probe = AsyncClient(service.url)
    created = await probe.send("POST", "/api/u/tasks", {"title": "x"})
    for client in others:
        await client.send("GET", "/livez")  # connected
    with psycopg.connect(url) as holder:
        holder.execute("SELECT FROM tasks FOR UPDATE")
        path = created.headers["location"]
        accepted = [asyncio.create_task(timed(one, "PUT", path, {"title": str(n)})) for n, one in enumerate(writers)]
        while b"tasks_http_requests_in_flight 21.0" not in (await probe.send("GET", "/metrics")).body:
            await asyncio.sleep(0.01)
        shed = [await timed(one, "GET", "/api/u/tasks") for one in others]
        for path in ("/livez", "/readyz", "/metrics"):
            took, answer = await timed(probe, "GET", path)
            assert (answer.status, took < 0.05) == (200, True)
        ends = await asyncio.gather(*accepted)
    assert {(answer.status, answer.headers["retry-after"]) for _, answer in shed} == {(503, "1")}
    assert {answer.body for _, answer in shed} == {b'{"error":"Service is temporarily unavailable"}'}
    assert sorted(took for took, _ in shed)[-4] < 0.05  # but for a moment in which the machine does something else
    assert {answer.status for _, answer in ends} <= {503, 504}
    assert max(took for took, _ in ends) < DEADLINE_S + 0.5
    assert (await probe.send("GET", "/api/u/tasks")).status == 200
    assert b'tasks_http_requests_rejected_total{reason="in_flight"} 40.0' in (await probe.send("GET", "/metrics")).body
    for client in (*writers, *others, probe):
        client.close()


async def test_the_end_of_the_service_ends_the_wait_for_a_place(url: str, serve: Serve) -> None:
    service = serve(url, MAX_IN_FLIGHT_PER_USER="1")
    clients = [AsyncClient(service.url) for _ in range(4)]
    created = await clients[0].send("POST", "/api/u/tasks", {"title": "x"})
    path = created.headers["location"]
    with psycopg.connect(url) as holder:
        holder.execute("SELECT FROM tasks FOR UPDATE")
        stuck = asyncio.create_task(clients[0].send("PUT", path, {"title": "y"}))
        await until_blocked(url)
        waiting = [asyncio.create_task(timed(one, "GET", path)) for one in clients[1:]]
        async with AsyncClient(service.url) as probe:
            while b"tasks_http_requests_waiting 3.0" not in (await probe.send("GET", "/metrics")).body:
                await asyncio.sleep(0.01)
        service.process.terminate()
        ends = await asyncio.gather(*waiting)
        assert {answer.status for _, answer in ends} == {429}
        assert max(took for took, _ in ends) < 1.5  # they would have waited for 2 s
        holder.rollback()
        assert (await stuck).status == 200
    for client in clients:
        client.close()


async def test_row_locked_by_another_session_is_504_and_touches_no_other_row(url: str, serve: Serve) -> None:
    service = serve(url, **LIMITS)
    async with AsyncClient(service.url) as client, AsyncClient(service.url) as other:
        path = (await client.send("POST", "/api/u/tasks", {"title": "x"})).headers["location"]
        with psycopg.connect(url) as holder:
            holder.execute("SELECT FROM tasks FOR UPDATE")
            stuck = asyncio.create_task(timed(client, "PUT", path, {"title": "y"}))
            slowest = 0.0
            while not stuck.done():
                for request in (
                    ("GET", path),
                    ("POST", "/api/v/tasks", {"title": "z"}),
                    ("POST", "/api/u/tasks", {"title": "z"}),
                ):
                    took, answer = await timed(other, *request)
                    assert answer.status in (200, 201)
                    slowest = max(slowest, took)
            took, answer = await stuck
            assert slowest < 0.5
        assert (answer.status, answer.json()) == (504, {"error": "The request took too long"})
        assert 1 <= took < 1.5
        assert (await client.send("GET", path)).json()["title"] == "x"
        assert service.logged(status=504)["sqlstate"] == "57014"
        assert (await client.send("PUT", path, {"title": "y"})).status == 200


LOCKS_THE_OTHER = """
CREATE FUNCTION lock_the_other() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM tasks WHERE id <> OLD.id FOR UPDATE;
    RETURN NEW;
END $$;
CREATE TRIGGER lock_the_other BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION lock_the_other();
"""


async def test_deadlock_is_retried_and_no_client_sees_it(url: str, serve: Serve) -> None:
    """40P01: the statement changed nothing, so the service repeats it."""
    service = serve(url)
    async with AsyncClient(service.url) as client:
        mine = (await client.send("POST", "/api/u/tasks", {"title": "mine"})).headers["location"]
        await client.send("POST", "/api/u/tasks", {"title": "theirs"})
        with psycopg.connect(url, autocommit=True) as admin, psycopg.connect(url) as them:
            admin.execute(LOCKS_THE_OTHER)
            them.execute("SET deadlock_timeout = '1min'")  # it is the service's statement that PostgreSQL ends
            them.execute("SELECT FROM tasks WHERE title = 'theirs' FOR UPDATE")
            update = asyncio.create_task(client.send("PUT", mine, {"completed": True}))
            await until_blocked(url)
            await asyncio.to_thread(them.execute, "SELECT FROM tasks WHERE title = 'mine' FOR UPDATE")
            them.rollback()
            answer = await update
        assert (answer.status, answer.json()["completed"], answer.json()["version"]) == (200, True, 2)
        assert b"tasks_database_calls_retried_total 1.0" in (await client.send("GET", "/metrics")).body


async def test_serialization_failure_is_retried_and_no_client_sees_it(url: str, serve: Serve) -> None:
    """40001, where an operator asks for more than READ COMMITTED."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(
            f"ALTER DATABASE {admin.info.dbname} SET default_transaction_isolation = 'repeatable read'".encode()
        )
        service = serve(url)
        async with AsyncClient(service.url) as client:
            path = (await client.send("POST", "/api/u/tasks", {"title": "x"})).headers["location"]
            with psycopg.connect(url) as them:
                them.execute("UPDATE tasks SET version = version + 1")
                update = asyncio.create_task(client.send("PUT", path, {"completed": True}))
                await until_blocked(url)
                them.commit()
            answer = await update
            assert (answer.status, answer.json()["version"]) == (200, 3)
            assert b"tasks_database_calls_retried_total 1.0" in (await client.send("GET", "/metrics")).body
