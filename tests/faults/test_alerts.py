"""The alerts of deploy/prometheus fire for real faults: Debian's Prometheus scrapes the service meanwhile.

The rules are the project's, with seconds for minutes (tests.support.prometheus.fast). A full disk, a failover and a
lack of descriptors are left to promtool (tests/deploy/alerts_test.yaml).
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
from click.testing import CliRunner

from service.operations.cli import cli
from service.operations.embedded import Embedded
from tests.faults.conftest import Serve
from tests.support import http
from tests.support.databases import a_day_passes, terminate
from tests.support.http import AsyncClient
from tests.support.processes import ROOT, RunningService
from tests.support.prometheus import Prometheus, fast, free_port
from tests.support.waiting import until, wait_until

pytestmark = pytest.mark.debian

RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
FIRES_S = 30


@contextmanager
def watched(service: RunningService) -> Iterator[Prometheus]:
    """A Prometheus that has seen the service well."""
    with Prometheus([urlsplit(service.url).netloc], fast(RULES.read_text())) as prometheus:
        wait_until(lambda: prometheus.query("tasks_database_connections > 0"))
        assert prometheus.firing() == set()
        yield prometheus


def fires(prometheus: Prometheus, *alerts: str) -> None:
    wait_until(lambda: prometheus.firing() >= set(alerts), FIRES_S, prometheus.firing)


def test_a_stopped_postgresql(victim: Embedded, url: str, serve: Serve) -> None:
    service = serve(url)
    with watched(service) as prometheus:
        victim.stop()

        def create() -> bool:
            response = http.exchange(service.url, http.request("POST", "/api/u/tasks", b'{"title": "x"}'))
            return response.status == 503 and "TasksRequestsFail" in prometheus.firing()

        wait_until(create, FIRES_S)
        fires(prometheus, "TasksDatabaseUnreachable", "TasksDatabaseConnectionsLost", "TasksRequestsFail")


def test_terminated_sessions(url: str, serve: Serve) -> None:
    with watched(serve(url)) as prometheus, psycopg.connect(url, autocommit=True) as admin:
        terminate(admin)
        fires(prometheus, "TasksDatabaseConnectionsLost")
        assert "TasksDatabaseUnreachable" not in prometheus.firing()


def test_a_missing_table(url: str, serve: Serve) -> None:
    service = serve(url)
    with watched(service) as prometheus, psycopg.connect(url, autocommit=True) as admin:
        admin.execute("ALTER TABLE tasks RENAME TO elsewhere")
        http.exchange(service.url, http.request("GET", "/api/u/tasks"))
        fires(prometheus, "TasksDatabaseSchemaMismatch")


async def test_a_locked_row_and_too_many_requests(url: str, serve: Serve) -> None:
    service = serve(
        url, MAX_IN_FLIGHT="4", MAX_IN_FLIGHT_PER_USER="4", STATEMENT_TIMEOUT_MS="3000", REQUEST_DEADLINE_MS="4000"
    )
    with ExitStack() as stack:
        clients = [AsyncClient(service.url) for _ in range(10)]
        for client in clients:
            stack.callback(client.close)
        created = await clients[0].send("POST", "/api/u/tasks", {"title": "x"})
        prometheus = await asyncio.to_thread(stack.enter_context, watched(service))
        with psycopg.connect(url) as holder:
            holder.execute("SELECT FROM tasks FOR UPDATE")
            writes = [client.send("PUT", created.headers["location"], {"title": "y"}) for client in clients]
            responses = await asyncio.gather(*writes)
        assert {response.status for response in responses} == {503, 504}
        expected = {"TasksDatabaseTimeouts", "TasksRequestsRejected"}
        await until(lambda: prometheus.firing() >= expected, FIRES_S, prometheus.firing)


def test_a_serialization_failure(url: str, serve: Serve) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(
            f"ALTER DATABASE {admin.info.dbname} SET default_transaction_isolation = 'repeatable read'".encode()
        )
        service = serve(url)
        created = http.exchange(service.url, http.request("POST", "/api/u/tasks", b'{"title": "x"}'))
        with watched(service) as prometheus, psycopg.connect(url) as them:
            them.execute("UPDATE tasks SET version = version + 1")
            update = http.request("PUT", created.headers["location"], b'{"completed": true}')
            with http.connect(service.url) as connection:
                connection.sendall(update)
                blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                wait_until(lambda: admin.execute(blocked).fetchone() is not None)
                them.commit()
                assert http.read_response(connection).status == 200
            fires(prometheus, "TasksDatabaseRetries")


def test_a_client_that_sends_slowly(url: str, serve: Serve) -> None:
    service = serve(url)
    with watched(service) as prometheus, http.connect(service.url, timeout_s=30) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        assert http.read_response(client).status == 408
        fires(prometheus, "TasksClientsSlow")


def test_a_service_that_stopped(url: str, serve: Serve) -> None:
    service = serve(url)
    with watched(service) as prometheus:
        service.stop()
        fires(prometheus, "TasksServiceDown")


def test_a_worker_that_is_killed(url: str, serve: Serve) -> None:
    service = serve(url, WORKERS="2")
    with watched(service) as prometheus:
        psutil.Process(service.process.pid).children()[0].kill()
        fires(prometheus, "TasksWorkerRestarts")


def test_idempotency_records_that_are_not_pruned(url: str, serve: Serve) -> None:
    keyed = http.request("POST", "/api/u/tasks", b'{"title": "x"}', {"Idempotency-Key": "k"})
    service = serve(url)
    assert http.exchange(service.url, keyed).status == 201
    service.stop()
    a_day_passes(url, "u", less="-3 days")
    service = serve(url, PORT=str(free_port()))
    with Prometheus([urlsplit(service.url).netloc], fast(RULES.read_text())) as prometheus:
        fires(prometheus, "TasksPruneMissing")
        CliRunner().invoke(cli, ["prune"], env={"DATABASE_URL": url}, catch_exceptions=False)
        service.stop()
        service.start()
        wait_until(lambda: prometheus.query("tasks_idempotency_expired_records == 0"))
        wait_until(lambda: "TasksPruneMissing" not in prometheus.firing(), FIRES_S, prometheus.firing)
