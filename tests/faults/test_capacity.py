"""Nobody can take the service from others: places, a user's share of them, and memory."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.support.http import connect, exchange, request
from tests.support.marks import own_protocol
from tests.support.processes import RunningService, wait_ready
from tests.support.waiting import wait_until

PLACES = 4


@pytest.fixture(scope="module")
def url(clone: Callable[[], str]) -> str:
    return clone()


@pytest.fixture(scope="module")
def small(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with few places and little memory for bodies."""
    limits = {"MAX_IN_FLIGHT": str(PLACES), "MAX_IN_FLIGHT_PER_USER": "2", "MAX_BUFFER_MB": "16"}
    settings = {"DATABASE_URL": url, "AUTH_MODE": "none"} | limits
    with RunningService(tmp_path_factory.mktemp("small"), **settings) as running:
        wait_ready(running.url)
        yield running


def until_in_flight(service: RunningService, count: int) -> None:
    wait_until(lambda: f"tasks_http_requests_in_flight {count}.0" in service.http.get("/metrics").text)


def test_bodies_that_do_not_come_take_no_place(small: RunningService) -> None:
    with ExitStack() as stack:
        for number in range(PLACES * 4):
            one = stack.enter_context(connect(small.url))
            one.sendall(
                request("POST", f"/api/slow-{number}/tasks", headers={"Content-Length": "10"}) + b"[" * (number % 2)
            )
        for number in range(5):
            assert exchange(small.url, request("GET", f"/api/other-{number}/tasks")).status == 200


def test_clients_that_do_not_read_a_list_take_no_place(small: RunningService) -> None:
    """Neither a streamed list nor a page, and the lists that are not read are held in part only."""
    users = [f"reader-{number}" for number in range(PLACES + 1)]
    batch = [{"title": "x", "description": "a" * 5000}] * 500
    for user in users:
        assert small.http.post(f"/api/{user}/tasks/batch", json=batch).status_code == 201
        assert small.http.post(f"/api/{user}/tasks/batch", json=batch).status_code == 201
    with ExitStack() as stack:
        for number, user in enumerate(users):
            one = stack.enter_context(connect(small.url))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(request("GET", f"/api/{user}/tasks" + ("?limit=200" if number % 2 else "")))
            assert one.recv(15) == b"HTTP/1.1 200 OK"
            until_in_flight(small, 1)  # the one that asks: all that fits into buffers was sent
        for user in users:
            assert exchange(small.url, request("GET", f"/api/{user}/tasks?limit=1")).status == 200


def until_waiting(service: RunningService, count: int) -> None:
    wait_until(lambda: f"tasks_http_requests_waiting {count}.0" in service.http.get("/metrics").text)


@own_protocol
def test_one_user_has_no_more_than_a_share(small: RunningService, url: str) -> None:
    """What is above it waits for a place, for 2 s at the most."""
    path = small.http.post("/api/greedy/tasks", json={"title": "x"}).headers["location"]
    with psycopg.connect(url) as holder, ThreadPoolExecutor(4) as threads:
        holder.execute("SELECT FROM tasks WHERE user_id = 'greedy' FOR UPDATE")
        stuck = [threads.submit(exchange, small.url, request("PATCH", f"{path}/complete")) for _ in range(2)]
        until_in_flight(small, 3)  # both, and the one that asks
        begin = time.monotonic()
        rejected = threads.submit(exchange, small.url, request("GET", path))
        with connect(small.url) as gone:
            gone.sendall(request("GET", path))
            until_waiting(small, 2)
        assert exchange(small.url, request("GET", "/api/modest/tasks")).status == 200
        until_in_flight(small, 3)  # what waits takes no place
        assert (rejected.result().status, rejected.result().json()) == (429, {"error": "Too many requests"})
        assert rejected.result().headers["retry-after"] == "1"
        assert 2 <= time.monotonic() - begin < 3
        until_waiting(small, 0)
        waits = threads.submit(exchange, small.url, request("GET", path))
        until_waiting(small, 1)
        holder.rollback()
        assert [one.result().status for one in (*stuck, waits)] == [200, 200, 200]
    assert exchange(small.url, request("GET", path)).status == 200
    assert 'requests_rejected_total{reason="user"} 1.0' in small.http.get("/metrics").text


@own_protocol
def test_pipelined_requests_and_unread_lists_take_bounded_memory(small: RunningService) -> None:
    """Each client asks for a list that it does not read, and for 256 kB of requests behind it."""
    batch = [{"title": "x", "description": "a" * 5000}] * 500
    assert small.http.post("/api/pipelines/tasks/batch", json=batch).status_code == 201
    sent = request("GET", "/api/pipelines/tasks") + request("GET", "/livez") * 6000
    before = psutil.Process(small.process.pid).memory_info().rss
    with ExitStack() as stack:
        for _ in range(150):
            one = stack.enter_context(connect(small.url))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.setblocking(False)
            with suppress(OSError):  # it was rejected
                one.send(sent)
        wait_until(lambda: 'rejected_total{reason="memory"} 0.0' not in small.http.get("/metrics").text)
        assert psutil.Process(small.process.pid).memory_info().rss - before < 50_000_000  # 30 more than is counted
        assert exchange(small.url, request("POST", "/api/small/tasks", b'{"title":"x"}')).status == 201
    wait_until(lambda: "tasks_http_buffered_bytes 0.0" in small.http.get("/metrics").text)


FILL = """
WITH owners AS (INSERT INTO users (id) SELECT 'wide-' || n FROM generate_series(1, 40) AS n RETURNING id)
INSERT INTO tasks (user_id, title, description)
SELECT owners.id, 'x', repeat(chr(1), 5000) FROM owners, generate_series(1, 250)
"""


@own_protocol
def test_lists_that_are_streamed_hold_what_they_will_need(small: RunningService, url: str) -> None:
    """However many begin before the kernel's buffers are full: 80 of which each keeps 480 kB."""
    with psycopg.connect(url) as database:
        database.execute(FILL)
    before = psutil.Process(small.process.pid).memory_info().rss
    with ExitStack() as stack:
        statuses: list[bytes] = []
        for number in range(80):
            one = stack.enter_context(connect(small.url))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.sendall(request("GET", f"/api/wide-{number // 2 + 1}/tasks"))
            statuses.append(one.recv(12))
            until_in_flight(small, 1)  # the one that asks: all that fits into buffers was sent
        assert 16 < statuses.count(b"HTTP/1.1 200") < 40
        assert set(statuses) == {b"HTTP/1.1 200", b"HTTP/1.1 503"}
        assert psutil.Process(small.process.pid).memory_info().rss - before < 50_000_000
    wait_until(lambda: "tasks_http_buffered_bytes 0.0" in small.http.get("/metrics").text)


def test_bodies_are_rejected_before_memory_runs_out(small: RunningService) -> None:
    length = 7_000_000
    with ExitStack() as stack:
        for number in range(3):
            one = stack.enter_context(connect(small.url))
            one.settimeout(10)
            one.sendall(request("POST", f"/api/heap-{number}/tasks/batch", headers={"Content-Length": str(length)}))
            try:
                one.sendall(b" " * (length - 1))
            except OSError:  # it was rejected, and the connection ended
                assert number == 2
        found = exchange(small.url, request("GET", "/metrics")).body.decode()
        assert 'tasks_http_requests_rejected_total{reason="memory"}' in found
        assert exchange(small.url, request("POST", "/api/small/tasks", b'{"title":"x"}')).status == 201


def rss(service: RunningService) -> int:
    return psutil.Process(service.process.pid).memory_info().rss


@own_protocol
def test_one_user_who_does_not_read_leaves_memory_to_others(small: RunningService) -> None:
    """A user's share is 4 of the 16 MB. One page may be larger, but not one of two."""
    batch = [{"title": "x", "description": "a" * 5000}] * 500
    for user in ("hoards", "hoards", "reads", "reads"):
        assert small.http.post(f"/api/{user}/tasks/batch", json=batch).status_code == 201
    with connect(small.url) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(request("GET", "/api/hoards/tasks?limit=1000"))
        assert slow.recv(12) == b"HTTP/1.1 200"
        until_in_flight(small, 1)  # the one that asks
        rejected = exchange(small.url, request("GET", "/api/hoards/tasks?limit=1000"))
        assert (rejected.status, rejected.headers["retry-after"]) == (429, "1")
        assert exchange(small.url, request("GET", "/api/hoards/tasks?limit=1")).status == 200
        assert small.http.get("/api/reads/tasks", params={"limit": 1000}).status_code == 200
    wait_until(lambda: "tasks_http_buffered_bytes 0.0" in small.http.get("/metrics").text)


def buffered(service: RunningService) -> float:
    return float(service.http.get("/metrics").text.partition("\ntasks_http_buffered_bytes ")[2].partition("\n")[0])


def send(stack: ExitStack, service: RunningService, data: bytes) -> socket.socket:
    one = stack.enter_context(connect(service.url))
    with suppress(OSError):  # it was reset
        one.sendall(data)
    return one


@own_protocol
def test_heads_that_are_not_complete_count_and_leave_memory_to_others(small: RunningService) -> None:
    """1,000 of 31 kB, which were not counted: they may take a quarter of the memory, then connections are reset."""
    with ExitStack() as stack:
        for _ in range(1000):
            send(stack, small, request("GET", "/livez", headers={"X": "a" * 31_000})[:-2])
        wait_until(lambda: 3e6 < buffered(small) < 4.1e6)
        late = stack.enter_context(connect(small.url))
        late.sendall(request("POST", "/api/late/tasks", headers={"Content-Length": "13"}))
        assert exchange(small.url, request("GET", "/livez")).status == 200
        late.sendall(b'{"title":"x"}')
        assert late.recv(12) == b"HTTP/1.1 201"
    wait_until(lambda: "tasks_http_buffered_bytes 0.0" in small.http.get("/metrics").text)


@own_protocol
def test_idle_connections_keep_nothing_of_what_they_have_read(url: str, tmp_path: Path) -> None:
    """1,000 heads of 30 kB, and 1,000 with 240 empty headers, of which 32 kB each were kept for the next head."""
    large = request("OPTIONS", "/api/idle/tasks", headers={"X": "a" * 30_000})
    many = request("OPTIONS", "/api/idle/tasks", headers={f"{number:x}": "" for number in range(240)})
    with RunningService(tmp_path, DATABASE_URL=url, AUTH_MODE="none") as service, ExitStack() as stack:
        wait_ready(service.url)
        before = rss(service)
        for head in [large, many] * 1000:
            assert send(stack, service, head).recv(12) == b"HTTP/1.1 204"
        assert rss(service) - before < 25_000_000


@own_protocol
def test_bodies_in_tiny_chunks_take_neither_memory_nor_time_from_others(small: RunningService) -> None:
    """62 kB in chunks of 2 bytes on 500 connections: 1.4 MB each, and 1 ms of each turn of the event loop."""
    body = b"2\r\n  \r\n" * 31_000
    before = rss(small)
    with ExitStack() as stack:
        for number in range(500):
            data = request("POST", f"/api/chunks-{number % 4}/tasks", headers={"Transfer-Encoding": "chunked"}) + body
            send(stack, small, data)
        begin = time.monotonic()
        for _ in range(5):
            assert exchange(small.url, request("GET", "/api/other/tasks?limit=1")).status == 200
        assert time.monotonic() - begin < 2
        assert rss(small) - before < 40_000_000
