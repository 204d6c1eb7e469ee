"""The generators: what they ask for, that a stall counts for all who would have come, that errors are seen."""

import random
import re
import threading
import time

import pytest
from hdrh.histogram import HdrHistogram

from tests.load import closed_loop, open_loop
from tests.load.stub_server import server
from tests.load.targets import Target
from tests.load.workload import OPERATIONS, Workload, request_maker

pytestmark = pytest.mark.load

USERS, TASKS = 7, 70
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
    make = request_maker(operation, Workload(USERS, TASKS), "host", random.Random(1))
    check(operation, [make().decode().partition(" HTTP/1.1\r\n")[0] for _ in range(300)])


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
    make = request_maker("mixed", Workload(USERS, TASKS), "host", random.Random(1))
    lines = [make().decode().partition(" HTTP/1.1\r\n")[0] for _ in range(20_000)]
    shares = [sum(bool(re.fullmatch(shape, line)) for line in lines) / len(lines) for shape in SHAPES.values()]
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
        found = open_loop.run(open_loop.Job(url, "get", Workload(USERS, TASKS), rate=100, seconds=0.5, connections=4))
    assert found.errors == found.answered == found.due == 50


@pytest.mark.debian
@pytest.mark.parametrize("token", ["e30.e30.c2ln", "another"])
def test_the_token_is_shown(token: str) -> None:
    workload = Workload(USERS, TASKS, token=token)
    with server(lambda *_: 200, token="e30.e30.c2ln") as url:
        sample = closed_loop.measure(Target("stub", url, None), "get", workload, None, connections=2, seconds=1)
        found = open_loop.run(open_loop.Job(url, "get", workload, rate=100, seconds=0.5, connections=4))
    refused = token == "another"
    assert (sample.failed > 0, found.errors > 0) == (refused, refused)


def test_a_stall_counts_for_everybody_who_would_have_come() -> None:
    """Half a second in which nothing is answered, at 200 requests a second over 4 connections: 100 requests fall due.
    A generator that only counts from when it sends would see 4 slow ones.
    """
    begun = threading.Event()
    stalled: list[float] = []  # from when to when

    def answer(method: str, path: str) -> int:
        now = time.monotonic()
        if not begun.is_set():
            begun.set()
            stalled.extend((now + 0.5, now + 1.0))
        if stalled[0] <= now < stalled[1]:
            time.sleep(stalled[1] - now)
        return 200

    with server(answer) as url:
        found = open_loop.run(open_loop.Job(url, "get", Workload(USERS, TASKS), rate=200, seconds=1.5, connections=4))
    assert (found.due, found.answered, found.errors) == (300, 300, 0)
    latencies = HdrHistogram.decode(found.histogram)
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
        found = open_loop.run(
            open_loop.Job(url, "get", Workload(USERS, TASKS), rate=100, seconds=0.5, connections=2, grace_s=0.5)
        )
        over.set()
    assert (found.due, found.answered) == (50, 0)
    latencies = HdrHistogram.decode(found.histogram)
    assert latencies.get_total_count() == 50
    assert latencies.get_min_value() >= 0.5e6 * 0.99


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True),
        (b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\nx: y\r\n\r\n{}", True),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}", False),
    ],
)
def test_an_answer_is_whole_when_its_length_has_come(answer: bytes, verdict: bool | None) -> None:
    assert open_loop.complete(answer) is verdict


def test_an_answer_without_a_length_is_refused() -> None:
    with pytest.raises(ValueError, match="without Content-Length"):
        open_loop.complete(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
