"""One request, one statement, one round trip; and a list of any length in bounded memory. Seen on the wire between the
service and PostgreSQL.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from service.tasks.pages import PAGE_ROWS
from tests.support.processes import RunningService, wait_ready
from tests.support.tap import Tap
from tests.support.waiting import wait_until

TASKS = "/api/u/tasks"
MANY = "/api/many/tasks"
COUNT = 100_000
GROWTH = 20_000_000  # bytes


@pytest.fixture(scope="module")
def url(clone: Callable[[], str]) -> str:
    """A database with one user of 100,000 tasks."""
    url = clone()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO users (id) VALUES ('many')")
        connection.execute(
            """INSERT INTO tasks (user_id, title, description)
               SELECT 'many', 'task ' || n, 'description of ' || n FROM generate_series(1, %s) AS n""",
            (COUNT,),
        )
        connection.execute("VACUUM ANALYZE tasks")
    return url


@pytest.fixture(scope="module")
def tap(url: str) -> Iterator[Tap]:
    with tempfile.TemporaryDirectory(prefix="tap-") as folder, Tap(url, Path(folder)) as tap:
        yield tap


@pytest.fixture(scope="module")
def tapped(tap: Tap, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service whose statements pass the tap, on one connection for reads and one for writes."""
    settings = {"DATABASE_URL": tap.url, "AUTH_MODE": "none", "DB_CONNECTIONS": "2"}
    with RunningService(tmp_path_factory.mktemp("tapped"), **settings) as running:
        wait_ready(running.url)
        yield running


@pytest.fixture
def http(tapped: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=tapped.url, timeout=30) as client:
        yield client


def requests(path: str) -> list[tuple[str, str, dict[str, Any], int]]:
    """Every endpoint in each of its ways; the last deletes the task."""
    body, keyed = {"title": "x"}, {"Idempotency-Key": "k"}
    return [
        ("GET", TASKS, {}, 200),
        ("HEAD", TASKS, {}, 200),
        ("GET", TASKS + "?limit=1", {}, 200),
        ("GET", TASKS + "?completed=true", {}, 200),
        ("GET", TASKS + "?completed=false&limit=1&after=1", {}, 200),
        ("POST", TASKS, {"json": body}, 201),
        ("POST", TASKS, {"json": body, "headers": keyed}, 201),
        ("POST", TASKS + "/batch", {"json": [body] * 3}, 201),
        ("POST", TASKS + "/batch", {"json": [body] * 3, "headers": keyed}, 201),
        ("GET", path, {}, 200),
        ("GET", path, {"headers": {"If-None-Match": "*"}}, 304),
        ("GET", TASKS + "/9", {}, 404),
        ("PUT", path, {"json": {"title": "y"}}, 200),
        ("PUT", path, {"json": {"title": "y"}}, 200),
        ("PUT", path, {"json": {"title": "z"}, "headers": {"If-Match": '"9"'}}, 412),
        ("PATCH", path + "/complete", {}, 200),
        ("PATCH", path + "/complete", {"json": {"completed": True}}, 200),
        ("PATCH", TASKS + "/9/complete", {}, 404),
        ("DELETE", path, {"headers": {"If-Match": '"9"'}}, 412),
        ("DELETE", path, {}, 204),
    ]


def test_each_request_is_one_statement_in_one_round_trip(http: httpx.Client, tap: Tap) -> None:
    """Bind, Describe, Execute and one Sync: PostgreSQL answers nothing before that, so there is nothing to wait for."""
    for prepared in (False, True):  # the first time, a Parse goes ahead, and nobody waits for that either
        path = http.post(TASKS, json={"title": "x"}).headers["location"]
        for method, url, what, status in requests(path):
            tap.take()
            answer = http.request(method, url, **what)
            assert answer.status_code == status, answer.text
            assert re.fullmatch("BDES" if prepared else "P?BDES", tap.take()), (method, url)


def test_what_is_refused_asks_the_database_nothing(http: httpx.Client, tap: Tap) -> None:
    http.get(MANY, params={"limit": 1})
    # A scrape asks for this one, once a minute.
    wait_until(lambda: "\ntasks_idempotency_expired_records 0" in http.get("/metrics").text)
    tap.take()
    for method, path, body in (
        ("GET", "/nowhere", None),
        ("GET", TASKS + "/x", None),
        ("GET", TASKS + "?limit=0", None),
        ("POST", TASKS, {"title": ""}),
        ("PUT", TASKS + "/1", {}),
        ("PATCH", TASKS, {}),
        ("OPTIONS", TASKS, None),
    ):
        http.request(method, path, json=body)
    for path in ("/livez", "/readyz", "/openapi.json", "/docs"):  # /metrics asks once a minute: test_metrics.py
        assert http.get(path).status_code == 200
    assert tap.take() == ""


def test_a_list_of_100_000_in_bounded_memory(http: httpx.Client, tap: Tap, tapped: RunningService) -> None:
    process = psutil.Process(tapped.process.pid)
    http.get(MANY, params={"limit": 1000})  # what a service that works holds anyway
    before = peak = process.memory_info().rss
    tap.hold(3)
    with http.stream("GET", MANY) as answer:
        chunks = answer.iter_raw()
        body = bytearray(next(chunks))
        # The first bytes are here, and of 400 pages the third is not read yet, let alone the last.
        assert tap.held.wait(10)
        assert body.startswith(b'[{"id":')
        tap.release()
        for chunk in chunks:
            body += chunk
            peak = max(peak, process.memory_info().rss)
    ids = [int(digits) for digits in re.findall(rb'\{"id":(\d+),', body)]
    assert body.endswith(b"}]")
    assert len(ids) == len(set(ids)) == COUNT
    assert ids == sorted(ids, reverse=True)
    assert peak - before < GROWTH, f"{before / 1e6:.1f} MB grew to {peak / 1e6:.1f} MB"
    assert tap.take().count("E") == COUNT // PAGE_ROWS + 1


def test_a_list_goes_on_where_a_connection_was_lost(http: httpx.Client, tap: Tap) -> None:
    tap.hold(3)
    with http.stream("GET", MANY) as answer:
        chunks = answer.iter_raw()
        body = next(chunks)
        assert tap.held.wait(10)
        tap.cut()
        tap.release()
        body += b"".join(chunks)
    assert body.count(b'"user_id":"many"') == COUNT


def test_a_list_is_cut_and_not_ended_where_the_database_fails(
    http: httpx.Client, tap: Tap, tapped: RunningService, url: str
) -> None:
    """A client must not take a part for the whole."""
    with psycopg.connect(url, autocommit=True) as connection, http.stream("GET", MANY) as answer:
        tap.hold(1)
        chunks = answer.iter_raw()
        next(chunks)
        assert answer.status_code == 200
        assert tap.held.wait(10)
        connection.execute("ALTER TABLE tasks RENAME TO gone")
        try:
            tap.release()
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):  # the connection is reset
                for _ in chunks:
                    pass
        finally:
            connection.execute("ALTER TABLE gone RENAME TO tasks")
    line = tapped.logged(message="a response was cut off")
    assert (line["sqlstate"], line["route"], "traceback" in line) == ("42P01", "/api/{user_id}/tasks", False)
    assert http.get(TASKS).status_code == 200


def test_a_client_that_goes_away_ends_the_reading(http: httpx.Client, tap: Tap) -> None:
    tap.hold(3)
    with http.stream("GET", MANY) as answer:
        chunks = answer.iter_raw()
        next(chunks)
        assert tap.held.wait(10)
    tap.release()
    while "tasks_http_requests_in_flight 1.0" not in http.get("/metrics").text:  # that one alone
        pass
    assert tap.take().count("E") < 10
