"""The service's own processes: stopped under load, killed, out of descriptors, and asked for more than they can do."""

import asyncio
import os
import resource
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import Serve
from tests.support.http import AsyncClient, ConnectionLost, exchange, request
from tests.support.ledger import Load
from tests.support.metrics import figure, wait_for_figure
from tests.support.processes import RunningService, wait_ready
from tests.support.waiting import until, wait_until

CLIENTS = 16


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sigterm_under_load_fails_no_request_that_was_accepted(url: str, serve: Serve, workers: str) -> None:
    service = serve(url, WORKERS=workers)
    async with Load(service.url, CLIENTS) as load:
        await load.more(100)
        begin = time.monotonic()
        status = await asyncio.to_thread(service.stop)
        assert time.monotonic() - begin < 5
        await load.until(lambda: load.refused >= CLIENTS)
    assert status == 0
    found = load.check(url)
    assert not load.open & found  # whatever was not answered was not begun
    # A listener that closes resets what the kernel has connected and nobody has taken.
    assert len(load.untaken) <= CLIENTS / 4
    assert load.cut == 0
    assert load.statuses.keys() <= {200, 201}
    assert not [line for line in service.lines if "Traceback" in line or '"level":"error"' in line]


async def test_a_killed_worker_is_replaced_and_the_other_serves_on(url: str, serve: Serve) -> None:
    service = serve(url, WORKERS="2")
    killed = 0

    def workers() -> list[psutil.Process]:
        """Those that live, the oldest first."""
        found = psutil.process_iter(["ppid", "cmdline", "status", "create_time"])
        ours = [process for process in found if process.info["ppid"] == service.process.pid]
        ours = [process for process in ours if process.info["status"] != psutil.STATUS_ZOMBIE]
        ours = [process for process in ours if "resource_tracker" not in " ".join(process.info["cmdline"])]
        return sorted(ours, key=lambda process: process.info["create_time"])

    async def all_serve() -> None:
        async with AsyncClient(service.url) as client:

            async def two() -> bool:
                figures = (await client.send("GET", "/metrics")).body
                restarts = f"tasks_worker_restarts_total {killed}.0".encode()
                return len(workers()) == 2 and b"tasks_workers 2.0" in figures and restarts in figures

            await until(two, timeout_s=15)

    async with Load(service.url, CLIENTS) as load:
        for _ in range(2):
            await all_serve()
            await load.more(100)
            workers()[0].kill()
            killed += 1
            await load.more(100, within_s=3)
        await all_serve()
        workers()[1].kill()
        killed += 1
        await all_serve()
    load.check(url)
    assert load.cut + len(load.untaken) <= 3 * CLIENTS  # what the killed ones were about
    assert load.statuses.keys() <= {200, 201}
    assert service.logged(message="a worker died and is replaced")["exit_code"] == -signal.SIGKILL


async def test_without_descriptors_open_connections_are_served_on(url: str, serve: Serve) -> None:
    """Those that are connected are served on, it is said, and afterwards all is well again."""
    service = serve(url)
    crowd = [AsyncClient(service.url) for _ in range(60)]

    async def come(one: AsyncClient) -> bool:
        try:
            return (await one.send("GET", "/api/u/tasks", timeout_s=5)).status == 200
        except (OSError, ConnectionLost):
            return False

    async with AsyncClient(service.url) as client:
        assert (await client.send("GET", "/api/u/tasks")).status == 200
        # Room for every lane, and for half of the crowd.
        most = psutil.Process(service.process.pid).num_fds() + 10 + len(crowd) // 2
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (most, most))
        try:
            served = await asyncio.gather(*(come(one) for one in crowd))
            assert 0 < served.count(True) < len(crowd)
            assert service.logged(logger="service.server", level="error")["message"].startswith(
                "new connections are dropped: Too many open files"
            )
            for path in ("/api/u/tasks", "/readyz", "/metrics", "/docs"):
                assert (await client.send("GET", path)).status == 200
            assert (await client.send("POST", "/api/u/tasks", {"title": "x"})).status == 201
        finally:
            for one in crowd:
                one.close()
        await asyncio.to_thread(service.logged, logger="service.server", message="new connections are accepted again")
        async with AsyncClient(service.url) as newcomer:
            assert await come(newcomer)


def test_all_workers_figures_are_added_up(url: str, tmp_path: Path) -> None:
    with RunningService(tmp_path, DATABASE_URL=url, AUTH_MODE="none", WORKERS="2") as service:
        wait_ready(service.url)
        wait_for_figure(service, "tasks_workers", 2)
        create = request("POST", "/api/u/tasks", b'{"title": "x"}')
        for _ in range(100):
            assert exchange(service.url, create).status == 201  # a connection each, so both workers have some
        # Each worker leaves its figures for the other once a second.
        wait_until(lambda: {_asked_anew(service) for _ in range(20)} == {100})
        assert figure(service, "tasks_database_connections_limit") == 20
        assert figure(service, "process_open_fds") > 20
        assert figure(service, "process_resident_memory_bytes") > 50e6
        assert figure(service, "process_cpu_seconds_total") > 0


def _asked_anew(service: RunningService) -> float:
    """The count of creates, as whichever worker takes a new connection tells it."""
    reply = exchange(service.url, request("GET", "/metrics", headers={"Connection": "close"}))
    name = 'tasks_http_request_duration_seconds_count{method="POST",route="/api/{user_id}/tasks",status="201"} '
    return next(
        (float(line.removeprefix(name)) for line in reply.body.decode().splitlines() if line.startswith(name)), 0.0
    )


def test_a_full_folder_for_figures_costs_a_line_and_no_request(url: str, tmp_path: Path, serve: Serve) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        service = serve(url, WORKERS="2", TMPDIR=str(place))
        with (place / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(b"x" * 4096):
                pass
        service.logged(10, logger="service.metrics", level="warning")
        end = time.monotonic() + 5
        while time.monotonic() < end:
            assert exchange(service.url, request("GET", "/api/u/tasks")).status == 200
            assert exchange(service.url, request("GET", "/metrics")).status == 200
        assert sum("service.metrics" in line for line in service.lines) <= 2  # one of each worker
        assert service.stop() == 0
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
