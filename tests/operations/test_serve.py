"""How the service starts, says how it is, and ends: one process each, as an operator runs it."""

import json
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import __version__
from tests.support.databases import create, named
from tests.support.http import exchange, request
from tests.support.processes import AWAY, RunningService, serve_to_end, wait_ready
from tests.support.waiting import wait_until


def running(folder: Path, url: str, **settings: str) -> RunningService:
    return RunningService(folder, **{"DATABASE_URL": url, "AUTH_MODE": "none"} | settings)


def test_it_says_where_everything_is(service: RunningService, client: httpx.Client) -> None:
    said = service.logged(message="listening")
    assert (said["url"], said["auth_mode"], said["workers"], said["version"]) == (service.url, "none", 1, __version__)
    assert re.fullmatch(r"test_\d+ on /\S+:5432", said["database"])
    assert service.logged(message="ready")
    assert all(json.loads(line) for line in service.lines)
    assert client.get("/livez").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    for path in ("/livez", "/readyz"):
        assert (client.head(path).status_code, client.head(path).content) == (200, b"")


def test_it_is_ready_once_its_database_is(cluster: Any, template: str, tmp_path: Path) -> None:
    url = named(cluster.url, "comes_late")
    with running(tmp_path, url) as service:
        create(cluster.url, "comes_late", template)
        wait_ready(service.url)
        assert service.http.get("/api/u/tasks").json() == []


def test_two_workers_share_the_port_and_stop_together(database_url: str, tmp_path: Path) -> None:
    with running(tmp_path, database_url, WORKERS="2") as service:
        wait_ready(service.url)
        assert service.http.post("/api/u/tasks", json={"title": "x"}).status_code == 201
        assert service.stop() == 0


# What cannot start


def test_a_port_in_use_is_said_in_a_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output = serve_to_end(tmp_path, "--port", str(port), DATABASE_URL=AWAY, AUTH_MODE="none")
    assert (status, output) == (
        1,
        f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; set another HOST or PORT\n",
    )


def test_an_address_that_is_none_is_said_in_a_line(tmp_path: Path) -> None:
    status, output = serve_to_end(tmp_path, "--host", "no.such.host.invalid", DATABASE_URL=AWAY, AUTH_MODE="none")
    assert (status, output.count("\n")) == (1, 1)
    assert output.startswith("Error: cannot listen on no.such.host.invalid:")


@pytest.mark.parametrize("url", ["nonsense", "mysql://x/y"])
def test_a_database_url_that_is_none_is_said_in_a_line(tmp_path: Path, url: str) -> None:
    status, output = serve_to_end(tmp_path, DATABASE_URL=url, AUTH_MODE="none")
    assert status == 1
    assert output.splitlines()[0] == "Error: the settings cannot be used"
    assert output.splitlines()[1].startswith("  DATABASE_URL must be")


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
