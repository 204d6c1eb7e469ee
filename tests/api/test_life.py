"""How the service starts, says how it is, and ends: one process each, as an operator runs it."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from tests.support.databases import create, named, wait_until_blocked
from tests.support.http import Response, connect, exchange, read_response, request
from tests.support.processes import ROOT, RunningService, wait_ready
from tests.support.waiting import wait_until

AWAY = "postgresql://nobody:secret@127.0.0.1:1/nowhere"


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


def wait_alive(service: RunningService) -> None:
    """Returns when /livez answers."""
    while True:
        with suppress(httpx.TransportError):
            assert service.http.get("/livez").status_code == 200
            return


def ready(connection: socket.socket) -> Response:
    connection.sendall(request("GET", "/readyz"))
    return read_response(connection)


def test_it_says_where_everything_is(service: RunningService, client: httpx.Client) -> None:
    text = "\n".join(service.lines[:4])
    for name in ("API", "Docs", "Database", "AUTH_MODE=none"):
        assert name in text
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    for path in ("/livez", "/readyz"):
        assert (client.head(path).status_code, client.head(path).content) == (200, b"")


@pytest.mark.faults
def test_without_its_database_it_lives_but_is_not_ready(tmp_path: Path) -> None:
    with running(tmp_path, AWAY, REQUEST_DEADLINE_MS="300", STATEMENT_TIMEOUT_MS="300") as service:
        wait_alive(service)
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


def test_it_is_ready_once_its_database_is(cluster: Any, template: str, tmp_path: Path) -> None:
    url = named(cluster.url, "comes_late")
    with running(tmp_path, url) as service:
        wait_alive(service)
        create(cluster.url, "comes_late", template)
        wait_ready(service.url)
        assert service.http.get("/api/u/tasks").json() == []


@pytest.mark.faults
def test_on_sigterm_what_is_in_flight_is_finished(database_url: str, tmp_path: Path) -> None:
    with running(tmp_path, database_url) as service:
        wait_ready(service.url)
        with slow_update(service, database_url) as answer:
            service.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionError):
                while True:
                    connect(service.url).close()
        assert (answer().status_code, answer().json()["title"]) == (200, "y")
        assert service.process.wait(10) == 0
        assert "Traceback" not in "\n".join(service.lines)


@pytest.mark.faults
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


@pytest.mark.faults
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


@pytest.mark.faults
def test_a_second_signal_stops_at_once(database_url: str, tmp_path: Path) -> None:
    with running(tmp_path, database_url) as service:
        wait_ready(service.url)
        with slow_update(service, database_url) as answer:
            service.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionError):
                while True:
                    connect(service.url).close()
            service.process.send_signal(signal.SIGTERM)
            service.process.wait(3)  # the statement would have another 5 s
            assert isinstance(answer(), httpx.TransportError)
        assert "Traceback" not in "\n".join(service.lines)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_as_soon_as_it_says_where_it_is_ends_it_well(database_url: str, tmp_path: Path, number: int) -> None:
    with running(tmp_path, database_url) as service:
        assert service.stop(number) == 0
        assert "Traceback" not in "\n".join(service.lines)


def test_two_workers_share_the_port_and_stop_together(database_url: str, tmp_path: Path) -> None:
    with running(tmp_path, database_url, WORKERS="2") as service:
        wait_ready(service.url)
        assert service.http.post("/api/u/tasks", json={"title": "x"}).status_code == 201
        assert service.stop() == 0


@pytest.mark.faults
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


@pytest.mark.faults
def test_on_its_own_database_what_was_answered_is_kept_whatever_happens(tmp_path: Path) -> None:
    """Without DATABASE_URL: killed and started again, and only one at a time."""
    pgdata = str(tmp_path / ".data" / "pgdata")
    with RunningService(tmp_path) as killed:
        wait_ready(killed.url)
        task = killed.http.post("/api/u/tasks", json={"title": "x"}).json()
        status, output = refused(tmp_path)
        assert (status, output.count("\n")) == (1, 1)
        assert "is in use by another service" in output
        assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    with RunningService(tmp_path) as service:
        wait_ready(service.url)
        assert service.http.get("/api/u/tasks").json() == [task]
        assert service.stop() == 0
    assert not [process.pid for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == pgdata]


# What cannot start


def refused(folder: Path, *arguments: str, **settings: str) -> tuple[int, str]:
    """The exit status and all output of `serve`, which is not expected to serve."""
    done = subprocess.run(
        [sys.executable, "-m", "service", "serve", *arguments],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PORT": "0"} | settings,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_port_in_use_is_said_in_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output = refused(tmp_path, "--port", str(port), DATABASE_URL=AWAY, AUTH_MODE="none")
    assert (status, output) == (1, f"Error: cannot listen on 127.0.0.1:{port}: Address already in use\n")


def test_an_address_that_is_none_is_said_in_a_line(tmp_path: Path) -> None:
    status, output = refused(tmp_path, "--host", "no.such.host.invalid", DATABASE_URL=AWAY, AUTH_MODE="none")
    assert (status, output.count("\n")) == (1, 1)
    assert output.startswith("Error: cannot listen on no.such.host.invalid:")


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y"])
def test_a_database_url_that_is_none_is_said_in_a_line(tmp_path: Path, url: str) -> None:
    status, output = refused(tmp_path, DATABASE_URL=url, AUTH_MODE="none")
    assert status == 1
    assert output == "Error: The database's URL is not one that libpq can read\n"


# The service, which on SIGUSR2 prints how many objects, held by nothing but circles, were collected since the last one.
COUNTED = """
import gc, signal
from service.operations.cli import main

found = []
gc.callbacks.append(lambda phase, info: found.append(info["collected"]) if phase == "stop" else None)

def told(*_):
    gc.collect()
    print(f"circles of {sum(found)}", flush=True)
    found.clear()

signal.signal(signal.SIGUSR2, told)
main()
"""


def test_requests_and_connections_leave_no_circles_behind(database_url: str, tmp_path: Path) -> None:
    """That is why the collector may look as seldom as server.py has it look."""
    settings = {"DATABASE_URL": database_url, "AUTH_MODE": "none"}
    with RunningService(tmp_path, command=(sys.executable, "-c", COUNTED), **settings) as service:
        wait_ready(service.url)
        path = service.http.post("/api/u/tasks", json={"title": "x"}).headers["location"]
        sent = {
            request("GET", path): 200,
            request("GET", path, headers={"X-Request-ID": "abc"}): 200,
            request("GET", "/api/u/tasks"): 200,
            request("GET", "/api/u/tasks/999"): 404,
            request("GET", "/nothing"): 404,
            request("POST", "/api/u/tasks", b'{"title": "y"}'): 201,
            request("POST", "/api/u/tasks", b'{"title": "y"}', {"Idempotency-Key": "k"}): 201,
            request("POST", "/api/u/tasks", b"{"): 400,
            request("POST", "/api/u/tasks", b'"' + b"x" * 70_000): 413,
            request("PUT", path, b'{"title": "y"}', {"If-Match": '"9"'}): 412,
            request("PATCH", path + "/complete"): 200,
            request("POST", "/livez"): 405,
            b"nonsense\r\n\r\n": 400,
        }
        circles(service)  # of the start
        for one, status in sent.items():
            assert [exchange(service.url, one).status for _ in range(20)] == [status] * 20
            assert circles(service) < 20, one  # objects: not one a request


def circles(service: RunningService) -> int:
    said = len(service.lines)
    service.process.send_signal(signal.SIGUSR2)

    def told() -> str | None:
        return next((line for line in service.lines[said:] if line.startswith("circles of ")), None)

    return int(wait_until(told, why=lambda: service.lines).removeprefix("circles of "))
