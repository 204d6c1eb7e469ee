"""Starts without a database, and stops: what was accepted is finished, and the rest is told."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from service.signals import ECHO_S
from tests.support.databases import wait_until_blocked
from tests.support.http import Response, connect, read_response, request
from tests.support.processes import AWAY, RunningService, serve_to_end, wait_ready


def running(folder: Path, url: str, **settings: str) -> RunningService:
    return RunningService(folder, **{"DATABASE_URL": url, "AUTH_MODE": "none"} | settings)


@contextmanager
def slow_update(service: RunningService, url: str) -> Iterator[Callable[[], httpx.Response]]:
    """A request in flight: an update that waits for a row which another session holds until the end of this context.
    Gives a function that waits for its answer.
    """
    path = service.http.post("/api/u/tasks", json={"title": "x"}).headers["location"]
    answers: list[Any] = []

    def update() -> None:
        try:
            answers.append(service.http.put(path, json={"title": "y"}))
        except httpx.TransportError as error:
            answers.append(error)

    thread = threading.Thread(target=update)

    def answer() -> httpx.Response:
        thread.join(30)
        return answers[0]

    with psycopg.connect(url) as other:
        other.execute("SELECT FROM tasks FOR UPDATE")
        thread.start()
        wait_until_blocked(url)
        yield answer


def ready(connection: socket.socket) -> Response:
    connection.sendall(request("GET", "/readyz"))
    return read_response(connection)


def test_without_its_database_it_lives_but_is_not_ready(tmp_path: Path) -> None:
    with running(tmp_path, AWAY, REQUEST_DEADLINE_MS="300", STATEMENT_TIMEOUT_MS="300") as service:
        answer = service.http.get("/api/u/tasks")
        assert (answer.status_code, answer.json()) == (503, {"error": "Service is temporarily unavailable"})
        assert answer.headers["retry-after"]
        answer = service.http.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"error": "The database cannot be reached"})
        assert answer.headers["retry-after"]
        assert service.stop() == 0
    output = "\n".join(service.lines)
    assert "cannot be reached" in output
    assert "Traceback" not in output
    assert "secret" not in output


def wait_refused(service: RunningService) -> None:
    """Returns when it takes no new connections."""
    with pytest.raises(ConnectionError):
        while True:
            connect(service.url).close()


def test_on_sigterm_what_is_in_flight_is_finished(database_url: str, tmp_path: Path) -> None:
    with running(tmp_path, database_url) as service:
        wait_ready(service.url)
        with slow_update(service, database_url) as answer:
            service.process.send_signal(signal.SIGTERM)
            wait_refused(service)
        assert (answer().status_code, answer().json()["title"]) == (200, "y")
        assert service.process.wait(10) == 0
        assert "Traceback" not in "\n".join(service.lines)


def test_ready_says_no_while_it_stops(database_url: str, tmp_path: Path) -> None:
    """On a connection that is open already: new ones are refused."""
    with running(tmp_path, database_url) as service:
        wait_ready(service.url)
        with slow_update(service, database_url) as answer, connect(service.url) as probe:
            reply = ready(probe)
            assert reply.status == 200
            service.process.send_signal(signal.SIGTERM)
            while reply.status == 200:
                reply = ready(probe)
            assert (reply.status, reply.json()) == (503, {"error": "The service is shutting down"})
        assert answer().status_code == 200
        assert service.process.wait(10) == 0


def test_what_cannot_be_finished_in_time_is_told_so(database_url: str, tmp_path: Path) -> None:
    with running(tmp_path, database_url, SHUTDOWN_GRACE_S="1") as service:
        wait_ready(service.url)
        headers = {"Content-Length": "14", "X-Request-ID": "mine"}
        with connect(service.url, 10) as connection:
            connection.sendall(request("POST", "/api/u/tasks", headers=headers) + b'{"title"')  # and never the rest
            service.process.send_signal(signal.SIGTERM)
            reply = read_response(connection)
        assert (reply.status, reply.json()) == (503, {"error": "Service is temporarily unavailable"})
        assert (reply.headers["retry-after"], reply.headers["x-request-id"]) == ("1", "mine")
        assert service.logged(request_id="mine")["status"] == 503
        assert service.process.wait(10) == 0


def test_a_second_signal_stops_at_once(database_url: str, tmp_path: Path) -> None:
    with running(tmp_path, database_url) as service:
        wait_ready(service.url)
        with slow_update(service, database_url) as answer:
            service.process.send_signal(signal.SIGTERM)
            wait_refused(service)
            time.sleep(2 * ECHO_S)  # sooner, it would be a copy of the first
            service.process.send_signal(signal.SIGTERM)
            service.process.wait(3)  # the statement would have another 5 s
            assert isinstance(answer(), httpx.TransportError)
        assert "Traceback" not in "\n".join(service.lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_as_soon_as_it_says_where_it_is_ends_it_well(database_url: str, tmp_path: Path, number: int) -> None:
    with running(tmp_path, database_url) as service:
        assert service.stop(number) == 0
        assert "Traceback" not in "\n".join(service.lines)


def test_above_the_limit_it_sheds_at_once_and_probes_still_answer(database_url: str, tmp_path: Path) -> None:
    with running(tmp_path, database_url, MAX_IN_FLIGHT="1") as service:
        wait_ready(service.url)
        with slow_update(service, database_url) as answer:
            shed = service.http.get("/api/u/tasks")
            assert (shed.status_code, shed.json()) == (503, {"error": "Service is temporarily unavailable"})
            assert shed.headers["retry-after"]
            assert shed.headers["x-request-id"]
            assert [service.http.get(path).status_code for path in ("/livez", "/readyz", "/metrics")] == [200] * 3
        assert answer().status_code == 200
        assert service.http.get("/api/u/tasks").status_code == 200


def test_on_its_own_database_what_was_answered_is_kept_whatever_happens(tmp_path: Path) -> None:
    """Without DATABASE_URL: killed and started again, and only one at a time."""
    pgdata = str(tmp_path / ".data" / "pgdata")
    with RunningService(tmp_path) as killed:
        wait_ready(killed.url)
        task = killed.http.post("/api/u/tasks", json={"title": "x"}).json()
        status, output = serve_to_end(tmp_path)
        assert status == 1
        assert "is in use by another service" in output.splitlines()[-1]
        assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    with RunningService(tmp_path) as service:
        wait_ready(service.url)
        assert service.http.get("/api/u/tasks").json() == [task]
        assert service.stop() == 0
    assert not [process.pid for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == pgdata]
