"""The figures of /metrics: each counts what it says, and all workers' are in them."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest

from service.tasks.queries import STATEMENTS
from tests.support.http import exchange, request
from tests.support.marks import own_protocol
from tests.support.metrics import figure, figures, requests_by_route, wait_for_figure
from tests.support.processes import RunningService, plain_client, wait_ready
from tests.support.waiting import wait_until

AWAY = "postgresql://nobody@127.0.0.1:1/nowhere"
TASKS, TASK = "/api/{user_id}/tasks", "/api/{user_id}/tasks/{task_id}"


@pytest.fixture(scope="module")
def url(clone: Callable[[], str]) -> str:
    return clone()


@pytest.fixture(scope="module")
def counted(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that only these tests ask. What one of them does is what the figures grow by."""
    cwd = tmp_path_factory.mktemp("counted")
    with RunningService(cwd, DATABASE_URL=url, AUTH_MODE="none") as running:
        wait_ready(running.url)
        yield running


def test_requests_by_route_method_and_status(counted: RunningService) -> None:
    before = requests_by_route(counted)
    http = counted.http
    for n in range(7):
        assert http.post("/api/u/tasks", json={"title": f"{n}"}).status_code == 201
    path = http.post("/api/u/tasks", json={"title": "x"}).headers["location"]
    for _ in range(3):
        http.get(path, headers={"X-Request-ID": "1"})
    http.get(path, headers={"If-None-Match": '"1"'})
    http.post("/api/u/tasks", json={})
    http.get("/api/u/tasks")
    http.get("/api/u/tasks/9999")
    http.put(path, json={"title": "y"}, headers={"If-Match": '"9"'})
    http.delete(path)
    http.post("/livez")
    http.get("/livez")
    http.get("/no/such/path")
    http.get("/docs")
    http.options("/api/u/tasks")
    assert requests_by_route(counted) - before == {
        ("POST", TASKS, "201"): 8,
        ("GET", TASK, "200"): 3,
        ("GET", TASK, "304"): 1,
        ("POST", TASKS, "400"): 1,
        ("GET", TASKS, "200"): 1,
        ("GET", TASK, "404"): 1,
        ("PUT", TASK, "412"): 1,
        ("DELETE", TASK, "204"): 1,
        ("OPTIONS", TASKS, "204"): 1,
        ("POST", "", "405"): 1,
        ("GET", "/livez", "200"): 1,
        ("GET", "", "404"): 1,
        ("GET", "/docs", "200"): 1,
    }


def test_how_long_requests_took(counted: RunningService) -> None:
    began = time.monotonic()
    sums, buckets = "tasks_http_request_duration_seconds_sum", "tasks_http_request_duration_seconds_bucket"
    sums_before, buckets_before = figures(counted, sums), figures(counted, buckets)
    for n in range(8):
        assert counted.http.post("/api/u/tasks", json={"title": f"{n}"}).status_code == 201
    took = figures(counted, sums) - sums_before
    assert 0 < took["POST", TASKS, "201"] < time.monotonic() - began
    within = figures(counted, buckets) - buckets_before
    assert within["+Inf", "POST", TASKS, "201"] == within["10.0", "POST", TASKS, "201"] == 8
    assert within["0.001", "POST", TASKS, "201"] <= within["0.1", "POST", TASKS, "201"]


@own_protocol
def test_what_is_no_http_is_counted_too(counted: RunningService) -> None:
    before = requests_by_route(counted)
    assert exchange(counted.url, b"nonsense\r\n\r\n").status == 400
    assert exchange(counted.url, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000).status == 431
    chunked = request("POST", "/api/u/tasks", headers={"Transfer-Encoding": "chunked"})
    assert exchange(counted.url, chunked + b"zz\r\n").status == 400
    assert requests_by_route(counted) - before == {("", "", "400"): 1, ("", "", "431"): 1, ("POST", "", "400"): 1}


@own_protocol
def test_a_client_that_goes_away_is_counted_as_such(counted: RunningService, url: str) -> None:
    path = counted.http.post("/api/u/tasks", json={"title": "x"}).headers["location"]
    before = requests_by_route(counted)
    with psycopg.connect(url) as holder:
        holder.execute("SELECT FROM tasks FOR UPDATE")
        with pytest.raises(httpx.ReadTimeout), plain_client(counted.url) as impatient:
            impatient.put(path, json={"title": "y"}, timeout=0.1)
        wait_for_figure(counted, "tasks_http_requests_in_flight", 1)  # the one that asks
        assert requests_by_route(counted) - before == {("PUT", TASK, "499"): 1}
    wait_for_figure(counted, "tasks_database_calls_in_flight", 0)


def test_statements_by_the_name_of_their_file(counted: RunningService, url: str) -> None:
    count, seconds = "tasks_database_statements_total", "tasks_database_statement_seconds_total"
    counts_before, seconds_before = figures(counted, count), figures(counted, seconds)
    compared = {(f"explain_{statement.name}",) for statement in STATEMENTS}  # with the schema, at the start
    assert compared <= counts_before.keys()
    path, *_ = [counted.http.post("/api/u/tasks", json={"title": "x"}).headers["location"] for _ in range(5)]
    for _ in range(3):
        counted.http.get(path)
    begin = time.monotonic()
    with psycopg.connect(url) as holder, ThreadPoolExecutor(1) as threads:
        holder.execute("SELECT FROM tasks FOR UPDATE")
        update = threads.submit(counted.http.put, path, json={"title": "y"})
        wait_for_figure(counted, "tasks_database_calls_in_flight", 1)
        time.sleep(0.1)  # the time that is to be found in the figures
        holder.rollback()
        assert update.result().status_code == 200
    elapsed = time.monotonic() - begin
    assert figures(counted, count) - counts_before == {("create",): 5, ("get",): 3, ("update",): 1}
    took = figures(counted, seconds) - seconds_before
    assert took.keys() <= {("create",), ("get",), ("update",)}  # what takes less than its clock's ms may count as 0
    assert 0.1 <= took["update",] <= elapsed


@pytest.mark.faults
def test_all_workers_figures_are_added_up(url: str, tmp_path: Path) -> None:
    with RunningService(tmp_path, DATABASE_URL=url, AUTH_MODE="none", WORKERS="2") as service:
        wait_ready(service.url)
        wait_for_figure(service, "tasks_workers", 2)
        create = request("POST", "/api/u/tasks", b'{"title": "x"}')
        for _ in range(100):
            assert exchange(service.url, create).status == 201  # a connection each, so both workers have some
        # Each worker leaves its figures for the other once a second.
        wait_until(lambda: {_asked_anew(service) for _ in range(20)} == {100})
        assert figure(service, "tasks_database_connections_limit") == 20
        assert figure(service, "process_open_fds") > 20
        assert figure(service, "process_resident_memory_bytes") > 50e6
        assert figure(service, "process_cpu_seconds_total") > 0


def _asked_anew(service: RunningService) -> float:
    """The count of creates, as whichever worker takes a new connection tells it."""
    reply = exchange(service.url, request("GET", "/metrics", headers={"Connection": "close"}))
    name = f'tasks_http_request_duration_seconds_count{{method="POST",route="{TASKS}",status="201"}} '
    return next(
        (float(line.removeprefix(name)) for line in reply.body.decode().splitlines() if line.startswith(name)), 0.0
    )


def test_writes_that_were_committed_together(counted: RunningService) -> None:
    groups, writes = "tasks_database_group_size_count", "tasks_database_group_size_sum"
    groups_before, writes_before = figure(counted, groups), figure(counted, writes)
    with ThreadPoolExecutor(16) as threads:
        posts = [threads.submit(counted.http.post, "/api/u/tasks", json={"title": f"{n}"}) for n in range(60)]
    assert {post.result().status_code for post in posts} == {201}
    assert figure(counted, writes) - writes_before == 60
    assert 1 <= figure(counted, groups) - groups_before <= 60
    assert figures(counted, "tasks_database_group_size_bucket")["+Inf",] == figure(counted, groups)
