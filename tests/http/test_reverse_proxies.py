"""Behind the reverse proxies that Debian has, with the files of deploy/proxies: connections are reused, an early
response is not lost, large lists reach slow readers, instances are replaced without a failed request, links have the
prefix, and no client can make up an address or a prefix.
"""

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from tests.support.http import Client, exchange, request
from tests.support.processes import RunningService, wait_ready
from tests.support.reverse_proxies import NAMES, free_port, reverse_proxy
from tests.support.waiting import wait_until

pytestmark = pytest.mark.debian

MANY = 100_000


class Pair:
    """Two instances of the service on one database, on ports that they keep."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.ports = [free_port(), free_port()]
        self._settings = {
            "DATABASE_URL": database_url,
            "AUTH_MODE": "none",
            "DRAIN_S": "3",
            "TRUSTED_PROXIES": "127.0.0.1",
            "ACCESS_LOG": "true",
            "LOG_FORMAT": "json",
        }
        self._folder = folder
        self.services = [self._start(port) for port in self.ports]

    def _start(self, port: int) -> RunningService:
        service = RunningService(self._folder, PORT=str(port), **self._settings).start()
        wait_ready(service.url)
        return service

    def restart(self, index: int) -> None:
        assert self.services[index].stop() == 0
        self.services[index] = self._start(self.ports[index])

    def stop(self) -> None:
        for service in self.services:
            service.stop(signal.SIGKILL)  # without DRAIN_S


@pytest.fixture
def pair(database_url: str, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path, database_url)
    yield pair
    pair.stop()


@pytest.fixture(params=NAMES)
def proxied(request: pytest.FixtureRequest, pair: Pair, tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "proxy"
    folder.mkdir()
    with reverse_proxy(request.param, folder, pair.ports) as url:
        yield url


def connections(pair: Pair) -> set[int]:
    """The ports of the proxy's connections to the instances."""
    found: set[int] = set()
    for service in pair.services:
        for connection in psutil.Process(service.process.pid).net_connections("tcp"):
            if connection.raddr and connection.laddr.port in pair.ports:
                found.add(connection.raddr.port)
    return found


def test_connections_are_reused(proxied: str, pair: Pair) -> None:
    seen: set[int] = set()
    with Client(proxied) as client:
        path = client.send("POST", "/api/u/tasks", b'{"title": "x"}').headers["location"]
        for _ in range(50):
            assert client.send("GET", urlsplit(path).path).status == 200
            assert client.send("PUT", urlsplit(path).path, b'{"title": "y"}').status == 200
            assert client.send("GET", "/api/u/tasks/999999999").status == 404
            seen |= connections(pair)
    assert len(seen) <= 20  # of 150 requests; health checks have more


def test_early_413_reaches_the_client(proxied: str) -> None:
    for _ in range(5):
        response = exchange(proxied, request("POST", "/api/u/tasks", b"x" * 9_000_000))  # nginx itself rejects more
        assert (response.status, set(response.json())) == (413, {"error"})


def test_large_list_reaches_a_slow_reader(proxied: str, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("INSERT INTO users (id) VALUES ('u')")
        admin.execute("INSERT INTO tasks (user_id, title) SELECT 'u', 'x' FROM generate_series(1, %s)", [MANY])
    parts = urlsplit(proxied)
    http = HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    http.request("GET", "/api/u/tasks")
    response = http.getresponse()
    pieces = []
    while piece := response.read(256 * 1024):
        pieces.append(piece)
        time.sleep(0.02)  # a reader of 12 MB/s
    assert len(json.loads(b"".join(pieces))) == MANY
    http.close()


def test_links_have_the_prefix_that_the_proxy_strips(proxied: str) -> None:
    prefix, tasks = "/tasks-service", "/api/a%2Fb/tasks"  # an ID with a slash, which the proxy must not decode
    for path in (prefix, ""):
        made_up = {"X-Forwarded-Prefix": "/evil"}
        for _ in range(2):
            created = exchange(proxied, request("POST", path + tasks, b'{"title": "x"}', made_up))
            assert created.status == 201
            assert created.headers["location"].startswith(f"{path}{tasks}/")
        page = exchange(proxied, request("GET", path + tasks + "?limit=1", headers=made_up))
        assert page.headers["link"].startswith(f"<{path}{tasks}?limit=1&after=")
        assert exchange(proxied, request("GET", path + "/")).headers["location"] == f"{path}/docs"
        described = exchange(proxied, request("GET", path + "/openapi.json")).json()
        assert described["servers"] == [{"url": path or "/"}]


def test_path_with_an_empty_segment_is_not_found(proxied: str) -> None:
    assert exchange(proxied, request("GET", "/api//u/tasks")).status == 404


def test_client_in_the_log_is_the_one_that_the_proxy_sees(proxied: str, pair: Pair) -> None:
    parts = urlsplit(proxied)
    http = HTTPConnection(parts.hostname or "", parts.port, timeout=30, source_address=("127.0.0.2", 0))
    headers = {"Host": "localhost", "X-Forwarded-For": "192.0.2.66", "X-Request-ID": "mine"}
    http.request("GET", "/api/u/tasks", headers=headers)
    assert http.getresponse().status == 200
    http.close()

    def lines() -> list[Any]:
        found = [line for service in pair.services for line in tuple(service.lines) if '"mine"' in line]
        return [json.loads(line)["client"] for line in found]

    assert wait_until(lines) == ["127.0.0.2"]


def test_page_of_the_same_origin_can_write_and_another_cannot(proxied: str) -> None:
    host = urlsplit(proxied).netloc
    for origin, status in ((f"http://{host}", 201), ("http://evil.example", 403)):
        headers = {"Host": host, "Origin": origin}
        assert exchange(proxied, request("POST", "/api/u/tasks", b'{"title": "x"}', headers)).status == status


@contextmanager
def load(url: str, clients: int) -> Generator[Counter[str]]:
    """Clients that create a task and read it, all the while. Gives how each request ended."""
    over = threading.Event()
    ends: Counter[str] = Counter()
    numbers = count()

    def work() -> None:
        with Client(url) as client:
            while not over.is_set():
                key = {"Idempotency-Key": f"{next(numbers)}"}
                try:
                    created = client.send("POST", "/api/u/tasks", b'{"title": "x"}', key)
                    ends[f"POST {created.status}" if created.status == 201 else str(created)] += 1
                    if created.status == 201:
                        read = client.send("GET", f"/api/u/tasks/{created.json()['id']}")
                        ends[f"GET {read.status}" if read.status == 200 else str(read)] += 1
                except OSError as error:
                    ends[repr(error)] += 1
                    client.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield ends
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_instances_are_replaced_without_a_failed_request(proxied: str, pair: Pair) -> None:
    with load(proxied, 6) as ends:
        for index in (0, 1, 0):
            pair.restart(index)
            # As operators do: the next one only when the proxy sends requests to this one again.
            served = pair.services[index].http
            wait_until(lambda served=served: 'method="POST"' in served.get("/metrics").text, 30)
    assert ends.keys() == {"POST 201", "GET 200"}, ends
