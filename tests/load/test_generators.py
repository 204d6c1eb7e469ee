"""The generators: what they ask for, that a stall counts for all who would have come, that errors are seen."""

import math
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httptools
import pytest

from tests.load import closed_loop
from tests.load.generator import engine
from tests.load.generator import job as generator
from tests.load.generator.connection import Connection, Place
from tests.load.generator.job import NO_RESPONSE, NOT_SENT, Job
from tests.load.stub_server import certificate, raw_server, server
from tests.load.targets import Target
from tests.load.workload import MIX, OPERATIONS, Account, Workload, request_maker, weights

pytestmark = pytest.mark.load

USERS, TASKS = 7, 70
HOST = urlsplit("http://host")
GET = weights("get")
TASK = r"/api/user-(?P<user>\d+)/tasks/(?P<task>\d+)"
SHAPES = {
    "get": f"GET {TASK}",
    "list": r"GET /api/user-\d+/tasks\?limit=50",
    "create": r"POST /api/user-\d+/tasks",
    "toggle": f"PATCH {TASK}/complete",
}
ALL = SHAPES | {closed_loop.CREATE_MANY: r"POST /api/user-\d+/tasks/batch"}


def check(operation: str, asked: list[str]) -> None:
    """Every request is one of the operation's, of a task and its owner; users and tasks differ."""
    shapes = list(SHAPES.values()) if operation == "mixed" else [ALL[operation]]
    for line in asked:
        [found] = [match for shape in shapes if (match := re.fullmatch(shape, line))]
        if "task" in found.groupdict():
            assert (int(found["task"]) - 1) % USERS + 1 == int(found["user"])
    assert len(set(asked)) >= USERS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_open_loop_asks_for_tasks_of_their_owners(operation: str) -> None:
    make = request_maker(weights(operation), Workload(USERS, TASKS), HOST, random.Random(1))
    check(operation, [make()[1].decode().partition(" HTTP/1.1\r\n")[0] for _ in range(300)])


@pytest.mark.debian
@pytest.mark.parametrize("operation", [*OPERATIONS, closed_loop.CREATE_MANY])
def test_the_closed_loop_asks_for_tasks_of_their_owners(operation: str) -> None:
    asked: list[str] = []

    def answer(method: str, path: str) -> int:
        asked.append(f"{method} {path}")
        return 200

    with server(answer) as url:
        sample = closed_loop.measure(
            Target("stub", url, None), operation, Workload(USERS, TASKS), None, connections=2, seconds=1
        )
    assert sample.failed == 0
    assert 0 < sample.requests <= len(asked)
    check(operation, asked)


def test_a_mix_is_70_20_5_5() -> None:
    make = request_maker(MIX, Workload(USERS, TASKS), HOST, random.Random(1))
    made = [make() for _ in range(20_000)]
    assert all(re.match(SHAPES[name], request.decode()) for name, request in made)
    shares = [sum(name == operation for name, _ in made) / len(made) for operation in SHAPES]
    assert shares == pytest.approx([0.7, 0.2, 0.05, 0.05], abs=0.01)


@pytest.mark.debian
def test_the_closed_loop_sees_errors() -> None:
    with server(lambda *_: 503) as url:
        sample = closed_loop.measure(
            Target("stub", url, None), "get", Workload(USERS, TASKS), None, connections=2, seconds=1
        )
    assert sample.failed >= sample.requests > 0


def test_the_open_loop_sees_errors() -> None:
    with server(lambda *_: 503) as url:
        result = generator.run(Job(url, GET, Workload(USERS, TASKS), rate=100, seconds=0.5, connections=4))
    assert result.outcomes == {"503": 50}
    assert result.errors == result.failed == 50
    assert result.histogram().get_total_count() == 0  # fast errors do not improve percentiles


def stalling(begin: float, end: float) -> Callable[[str, str], int]:
    """Responds at once, but not between these seconds after its first request."""
    first: list[float] = []

    def answer(method: str, path: str) -> int:
        now = time.monotonic()
        if not first:
            first.append(now)
        since = now - first[0]
        if begin <= since < end:
            time.sleep(end - since)
        return 200

    return answer


def test_a_stall_counts_for_everybody_who_would_have_come() -> None:
    """Half a second in which nothing is answered, at 200 requests a second over 4 connections: 100 requests fall due.
    A generator that only counts from when it sends would see 4 slow ones.
    """
    with server(stalling(0.5, 1.0)) as url:
        result = generator.run(Job(url, GET, Workload(USERS, TASKS), rate=200, seconds=1.5, connections=4))
    assert result.outcomes == {"200": 300}
    latencies = result.histogram()
    # Due evenly through the stall, they wait for what is left of it: a third of all waits up to half a second.
    assert latencies.get_value_at_percentile(60) < 100_000
    assert latencies.get_value_at_percentile(84) > 200_000
    assert latencies.get_value_at_percentile(95) > 350_000


def test_what_is_never_answered_is_in_the_histogram() -> None:
    over = threading.Event()

    def answer(method: str, path: str) -> int:
        over.wait(30)
        return 200

    with server(answer) as url:
        job = Job(url, GET, Workload(USERS, TASKS), rate=100, seconds=0.5, connections=2, grace=0.5)
        result = generator.run(job)
        over.set()
    assert result.outcomes == {NO_RESPONSE: 2, NOT_SENT: 48}
    assert (result.errors, result.failed) == (50, 0)
    latencies = result.histogram()
    assert latencies.get_total_count() == 50
    assert latencies.get_min_value() >= 0.5e6 * 0.99


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that hangs must not fill the generator's memory. What has waited longest is given up."""
    monkeypatch.setattr(engine, "MAX_WAITING", 10)
    over = threading.Event()
    with server(lambda *_: 200 if over.wait(30) else 500) as url:
        job = Job(url, GET, Workload(USERS, TASKS), rate=100, seconds=0.5, connections=2, grace=0.1)
        make = request_maker(job.mix, job.workload, urlsplit(url), random.Random(1))
        longest = 0

        class Spy(engine.Engine):
            def _wait(self, seconds: float) -> None:
                nonlocal longest
                longest = max(longest, len(self._waiting))
                super()._wait(seconds)

        result = Spy(job, make).run()
        over.set()
    assert longest == 10
    assert result.outcomes == {NO_RESPONSE: 2, NOT_SENT: 48}


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf, generator.MAX_RATE + 1])
def test_a_rate_has_bounds(rate: float) -> None:
    with pytest.raises(ValueError, match="the rate has to be above 0 and at most 100,000"):
        Job("http://127.0.0.1:1", GET, Workload(USERS, TASKS), rate=rate, seconds=1)


def test_a_generator_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "STOP_GRACE_S", 0.1)
    monkeypatch.setattr(generator, "KILL_S", 0.1)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    running = generator.Running(process)
    running.stop()
    with process.stdout, pytest.raises(generator.EndedEarly, match="was killed"):
        running.wait()
    running.close()


def test_a_service_that_is_gone_at_the_end_is_not_waited_for() -> None:
    """Requests are due that no connection will take."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    begun = time.monotonic()
    result = generator.run(Job(url, GET, Workload(USERS, TASKS), rate=200, seconds=0.5, connections=1, grace=60))
    assert time.monotonic() - begun < 20
    assert result.outcomes[NOT_SENT] + result.outcomes["connection refused"] == 100


def test_a_service_that_falls_behind_is_not_as_fast_as_the_rate() -> None:
    """It serves 10 a second at most. All 30 responses come, most of them after the end."""
    with server(lambda *_: time.sleep(0.1) or 200) as url:
        job = Job(url, GET, Workload(USERS, TASKS), rate=30, seconds=1, connections=1, grace=20)
        result = generator.run(job)
    assert result.outcomes == {"200": 30}
    assert 0 < result.rps() <= 10


def test_the_warm_up_is_not_measured() -> None:
    with server(lambda *_: 200) as url:
        result = generator.run(Job(url, GET, Workload(USERS, TASKS), rate=100, seconds=0.5, warm_up=0.5, connections=4))
    assert result.outcomes == {"200": 50}
    assert result.seconds == pytest.approx(0.5)


def test_figures_over_time_are_those_of_the_whole() -> None:
    with server(lambda *_: 200) as url:
        result = generator.run(Job(url, MIX, Workload(USERS, TASKS), rate=200, seconds=2.5, connections=4))
    assert {0, 1, 2} <= {one.second for one in result.over_time}
    assert sum(one.requests for one in result.over_time) == result.requests == 500
    assert max(one.max or 0 for one in result.over_time) == result.max_ms() == result.percentiles([100])[0]


def test_a_second_without_a_response_is_in_the_figures_over_time() -> None:
    with server(stalling(0.5, 2.6)) as url:
        job = Job(url, {"get": 1, "list": 1}, Workload(USERS, TASKS), rate=50, seconds=3, connections=4)
        result = generator.run(job)
    for operation in ("get", "list"):
        rows = [one for one in result.over_time if one.operation == operation]
        assert [one.second for one in rows] == list(range(len(rows)))
        assert (rows[1].requests, rows[1].p99, rows[1].max) == (0, None, None)


def test_the_closed_loop_keeps_each_connection_busy() -> None:
    now, most, lock = 0, 0, threading.Lock()

    def answer(method: str, path: str) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return 200

    with server(answer) as url:
        result = generator.run(Job(url, GET, Workload(USERS, TASKS), seconds=1, connections=5))
    assert result.lag_us is None  # nothing is due in a closed loop
    assert most == 5
    assert 5 * 10 <= result.outcomes["200"] <= 5 * 20


def test_a_connection_is_kept_for_the_next_request() -> None:
    """Opening one for each request costs three times the CPU, and is not what clients do."""
    threads: set[str] = set()  # the server has one for each connection

    def answer(method: str, path: str) -> int:
        threads.add(threading.current_thread().name)
        return 200

    with server(answer) as url:
        result = generator.run(Job(url, GET, Workload(USERS, TASKS), rate=100, seconds=0.5, connections=2))
    assert result.outcomes == {"200": 50}
    assert len(threads) == 2


def test_a_timeout_is_counted_with_the_time_it_took() -> None:
    over = threading.Event()
    with server(lambda *_: 200 if over.wait(30) else 500) as url:
        job = Job(url, GET, Workload(USERS, TASKS), seconds=1, connections=2, timeout=0.3)
        result = generator.run(job)
        over.set()
    assert result.outcomes["no response within 0.3 s"] >= 4
    assert result.histogram().get_min_value() >= 0.3e6 * 0.99


def test_a_service_that_is_away_is_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    result = generator.run(Job(url, GET, Workload(USERS, TASKS), seconds=0.5, connections=2))
    assert set(result.outcomes) == {"connection refused"}
    assert result.outcomes["connection refused"] >= 4


RESPONSES = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "200"),
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "200"),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", "204"),
    "after 103": (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", "201"),
    "close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", "200"),
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\n{}", "200"),
    "cut": (b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}", "closed by the server"),
    "nothing": (b"", "closed by the server"),
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", "the response is not HTTP/1.1"),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_every_framing_of_a_response_is_read(name: str) -> None:
    response, outcome = RESPONSES[name]
    with raw_server(response, close=name in ("close", "until the end", "cut", "nothing")) as url:
        result = generator.run(Job(url, GET, Workload(USERS, TASKS), seconds=0.3, connections=2))
    assert set(result.outcomes) == {outcome}
    assert result.outcomes[outcome] >= 4


def test_an_interim_response_is_not_the_response() -> None:
    """Also where it arrives before the response does."""
    connection = Connection(Place(socket.AF_INET, ("127.0.0.1", 1), "", None))
    connection.parser, connection.complete = httptools.HttpResponseParser(connection), False
    connection.parser.feed_data(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert not connection.complete
    connection.parser.feed_data(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    assert connection.complete
    assert connection.status == 201


def test_more_connections_than_select_allows() -> None:
    """Numbers of 1024 and above do not fit into select()'s set of descriptors."""
    with raw_server(RESPONSES["length"][0], close=False) as url:
        result = generator.run(Job(url, GET, Workload(USERS, TASKS), seconds=1, connections=1200))
    assert set(result.outcomes) == {"200"}
    assert result.outcomes["200"] >= 1200


def test_https_is_checked_unless_told_otherwise(tmp_path: Path) -> None:
    with raw_server(RESPONSES["length"][0], close=False, certificate=certificate(tmp_path)) as url:
        checked = generator.run(Job(url, GET, Workload(USERS, TASKS), seconds=0.3, connections=2))
        unchecked = generator.run(Job(url, GET, Workload(USERS, TASKS), seconds=0.3, connections=2, insecure=True))
    assert set(checked.outcomes) == {"TLS: self-signed certificate"}
    assert set(unchecked.outcomes) == {"200"}


def test_a_token_and_headers_are_sent() -> None:
    workload = Workload(accounts=[Account("ann@x", "e30.e30.c2ln", [7])], headers={"X-Trace": "1", "host": "inside"})
    make = request_maker(GET, workload, urlsplit("http://127.0.0.1:1/behind/"), random.Random(1))
    assert make() == (
        "get",
        b"GET /behind/api/ann%40x/tasks/7 HTTP/1.1\r\nAuthorization: Bearer e30.e30.c2ln\r\nX-Trace: 1\r\n"
        b"host: inside\r\n\r\n",
    )
