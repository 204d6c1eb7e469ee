"""What is measured: the service and its peers, each as processes of its own that answer on a port of loopback."""

import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.load.database import surroundings

SERVICE, GO, LITESTAR, FASTAPI = "service", "Go + pgx", "Litestar + psycopg_pool", "FastAPI + SQLModel"
MODULES = {LITESTAR: "litestar_plain", FASTAPI: "fastapi_sqlmodel"}

START_S = 30
STOP_S = 15
GO_FOLDER = Path(__file__).parent / "peers" / "go"
# Where Debian's golang-*-dev packages put their sources; they are built without modules and without the network.
GO_BUILD = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": ""}
UVICORN = [
    *(sys.executable, "-m", "uvicorn", "--port={port}", "--loop=uvloop", "--http=httptools"),
    *("--no-access-log", "--log-level=warning"),
]


class Plan(NamedTuple):
    """How a target is started. `environment` is beside PORT and DATABASE_URL; `{port}` in the command is replaced."""

    name: str
    command: list[str]
    environment: Mapping[str, str]


class Target(NamedTuple):
    """A target that answers. `pid` is the root of its processes, None for one that somebody else started."""

    name: str
    url: str
    pid: int | None


def cpu_s(pid: int) -> float:
    """Seconds of CPU that the process and its descendants have used, those included that have ended by now."""
    # The root comes last: who ends meanwhile is then found in the times of the children that it has waited for.
    return sum(sum(times[:4]) for times in _each(pid, psutil.Process.cpu_times))


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory of the largest of the process and its descendants, and of all, shared pages counted once."""
    found = list(_each(pid, psutil.Process.memory_full_info))
    return max(one.rss for one in found) / 2**20, sum(one.pss for one in found) / 2**20


def _each(pid: int, ask: Callable[[psutil.Process], Any]) -> Generator[Any]:
    root = psutil.Process(pid)
    for process in (*root.children(recursive=True), root):
        with suppress(psutil.NoSuchProcess):
            yield ask(process)


def service(connections: int, workers: int = 1, **settings: str) -> Plan:
    """The service itself. `connections` to the database are those of all workers together."""
    environment = {
        "AUTH_MODE": "none",
        "DB_CONNECTIONS": str(connections // workers),
        "WORKERS": str(workers),
        "LOG_LEVEL": "warning",
        **settings,
    }
    return Plan(SERVICE, [sys.executable, "-m", "service", "serve"], environment)


def peer(name: str, connections: int, workers: int) -> Plan:
    """A peer in Python on uvicorn with its fast parts."""
    command = [*UVICORN, f"tests.load.peers.{MODULES[name]}:app", f"--workers={workers}"]
    return Plan(name, command, {"DB_CONNECTIONS": str(connections // workers)})


def go(connections: int, folder: Path) -> Plan | None:
    """The peer in Go, built into `folder`; None where Go or pgx is missing."""
    program = folder / "peer"
    if shutil.which("go") is None:
        return None
    build = ["go", "build", "-o", str(program), "."]
    if subprocess.run(build, cwd=GO_FOLDER, env=os.environ | GO_BUILD, capture_output=True).returncode:
        return None
    return Plan(GO, [str(program)], {"DB_CONNECTIONS": str(connections)})


@contextmanager
def running(plans: Iterable[Plan], database_url: str) -> Generator[list[Target]]:
    """The targets, started one after the other, each answering; ended afterwards in the opposite order."""
    with ExitStack() as stack:
        yield [stack.enter_context(_running(plan, database_url)) for plan in plans]


@contextmanager
def _running(plan: Plan, database_url: str) -> Generator[Target]:
    port = free_port()
    environment = {"DATABASE_URL": database_url, "PORT": str(port), **plan.environment}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [part.format(port=port) for part in plan.command],
            **surroundings(**environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for the harness, which ends what it started in order
        )
        try:
            if not _answers(process, port):
                output.seek(0)
                raise RuntimeError(f"{plan.name} did not start: {output.read().decode(errors='replace')[-2000:]}")
            yield Target(plan.name, f"http://127.0.0.1:{port}", process.pid)
            if process.poll() is not None:
                raise RuntimeError(f"{plan.name} ended while it was measured, with status {process.returncode}")
        finally:
            _end(process)


def _answers(process: subprocess.Popen[Any], port: int) -> bool:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/api/user-1/tasks/1")
            if connection.getresponse().status == 200:
                return True
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    return False


def _end(process: subprocess.Popen[Any]) -> None:
    """Asks, then kills, the process and those it started."""
    if process.poll() is not None:
        return
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in psutil.wait_procs(family, timeout=1)[1]:
        child.kill()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
