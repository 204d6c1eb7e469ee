"""The figures of /metrics in trouble: reconnects, the queue, shed requests."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from tests.support.databases import terminate
from tests.support.metrics import figure, figures, requests_by_route, wait_for_figure
from tests.support.processes import AWAY, RunningService, plain_client, wait_ready


def test_lost_connections_and_reconnects_are_counted(database_url: str, tmp_path: Path) -> None:
    with RunningService(tmp_path, DATABASE_URL=database_url, AUTH_MODE="none") as service:
        wait_ready(service.url)
        service.http.get("/api/u/tasks")
        service.http.post("/api/u/tasks", json={"title": "x"})
        assert figure(service, "tasks_database_connects_total") == 2
        assert figure(service, "tasks_database_connections") == 2
        assert figure(service, "tasks_database_connections_limit") == 10
        assert figure(service, "tasks_database_connections_lost_total") == 0
        with psycopg.connect(database_url, autocommit=True) as admin:
            terminate(admin)
        wait_for_figure(service, "tasks_database_connections_lost_total", 2)
        assert +figures(service, "tasks_database_failures_total") == {("57",): 2}
        assert figure(service, "tasks_database_connections") == 0
        service.http.get("/api/u/tasks")
        service.http.post("/api/u/tasks", json={"title": "x"})
        assert figure(service, "tasks_database_connects_total") == 4
        assert figure(service, "tasks_database_connections") == 2
        assert figure(service, "tasks_database_connects_failed_total") == 0


def test_queued_calls_are_counted_while_the_database_is_away(tmp_path: Path) -> None:
    with (
        RunningService(tmp_path, DATABASE_URL=AWAY, AUTH_MODE="none") as service,
        ThreadPoolExecutor(5) as threads,
        plain_client(service.url) as http,
    ):
        answers = [threads.submit(http.get, "/api/u/tasks") for _ in range(5)]
        wait_for_figure(service, "tasks_database_calls_queued", 5)
        assert figure(service, "tasks_database_calls_in_flight") == 0
        assert figure(service, "tasks_http_requests_in_flight") == 6  # and the one that asks
        assert {answer.result().status_code for answer in answers} == {503}
        assert figure(service, "tasks_database_calls_queued") == 0
        assert figure(service, "tasks_database_connects_failed_total") > 2


def test_shed_requests_are_counted(url: str, tmp_path: Path) -> None:
    with RunningService(tmp_path, DATABASE_URL=url, AUTH_MODE="none", MAX_IN_FLIGHT="1") as service:
        wait_ready(service.url)
        path = service.http.post("/api/u/tasks", json={"title": "x"}).headers["location"]
        with psycopg.connect(url) as holder, ThreadPoolExecutor(1) as threads:
            holder.execute("SELECT FROM tasks FOR UPDATE")
            stuck = threads.submit(service.http.put, path, json={"title": "y"})
            wait_for_figure(service, "tasks_http_requests_in_flight", 2)
            for _ in range(3):
                assert service.http.get(path).status_code == 503
            holder.rollback()
            assert stuck.result().status_code == 200
        assert figures(service, "tasks_http_requests_rejected_total")[("in_flight",)] == 3
        assert requests_by_route(service)["GET", "", "503"] == 3
