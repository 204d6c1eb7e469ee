"""Every signal, however it is sent: what is in flight is finished, a later one ends it at once, nothing is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from service.operations import embedded
from service.signals import ECHO_S, SIGNALS
from tests.faults.test_stops import running, slow_update
from tests.support.processes import ROOT, RunningService, wait_ready
from tests.support.waiting import wait_until


def send(service: RunningService, number: int, how: str) -> None:
    """To the process, as an administrator does; to its group, as a terminal does; to both, as an init may."""
    if how in ("process", "both"):
        os.kill(service.process.pid, number)
    if how in ("group", "both"):
        os.killpg(service.process.pid, number)


def family(service: RunningService) -> list[psutil.Process]:
    return psutil.Process(service.process.pid).children(recursive=True)


def nothing_left_of(processes: list[psutil.Process]) -> bool:
    return not [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(("workers", "how"), [("1", "both"), ("2", "process"), ("2", "group"), ("2", "both")])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_and_its_copies_finish_what_is_in_flight(
    url: str, tmp_path: Path, number: signal.Signals, workers: str, how: str
) -> None:
    with running(tmp_path, url, WORKERS=workers) as service:
        wait_ready(service.url)
        with slow_update(service, url) as answer:
            children = family(service)
            send(service, number, how)
            time.sleep(0.04)
            send(service, SIGNALS[(SIGNALS.index(number) + 1) % len(SIGNALS)], how)
            time.sleep(ECHO_S)
            assert service.process.poll() is None
        assert answer().status_code == 200
        assert service.process.wait(10) == 0
        assert nothing_left_of(children)
    assert "Traceback" not in "\n".join(service.lines)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_second_signal_a_moment_later_ends_it_at_once(
    url: str, tmp_path: Path, number: signal.Signals, workers: str
) -> None:
    with running(tmp_path, url, WORKERS=workers) as service:
        wait_ready(service.url)
        with slow_update(service, url) as answer:
            children = family(service)
            send(service, signal.SIGTERM, "group")
            time.sleep(2 * ECHO_S)
            send(service, number, "group")
            assert service.process.wait(3) == 0  # the statement would have another 4 s
            assert isinstance(answer(), httpx.TransportError)
            assert nothing_left_of(children)
    assert "Traceback" not in "\n".join(service.lines)


@pytest.mark.parametrize("after_s", [0.0, 0.2, 0.4, 0.8, 1.6])
def test_a_start_that_is_interrupted_leaves_no_database_running(tmp_path: Path, after_s: float) -> None:
    """At any moment: while Python imports, a cluster is made, migrations run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PORT": "0", "WORKERS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    if after_s:
        assert "starting" in process.stdout.readline()
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=20)[0]
    assert process.returncode in (0, 130, -signal.SIGINT)  # the last: before Python runs any of our code
    assert "service/" not in said or "Traceback" not in said
    place = str(tmp_path / ".data")
    assert not [one.pid for one in psutil.process_iter(["cwd"]) if str(one.info["cwd"]).startswith(place)]


def test_stopping_at_once_stops_its_own_database_too(tmp_path: Path) -> None:
    with RunningService(tmp_path, WORKERS="2") as service:
        wait_ready(service.url)
        children = family(service)
        assert len(children) > 5
        send(service, signal.SIGQUIT, "both")
        time.sleep(2 * ECHO_S)
        send(service, signal.SIGQUIT, "both")
        service.process.wait(5)
        wait_until(lambda: nothing_left_of(children))
    assert embedded.running(tmp_path / ".data") is None


def test_killed_supervisor_leaves_no_worker(url: str, tmp_path: Path) -> None:
    with running(tmp_path, url, WORKERS="2") as service:
        wait_ready(service.url)
        children = family(service)
        service.process.kill()
        wait_until(lambda: nothing_left_of(children))


# A service whose workers end as soon as they begin.
BROKEN = """
from service.__main__ import main
from service.server import workers

workers.MODULE = "this"
main()
"""


def test_workers_that_never_serve_are_a_failed_start(url: str, tmp_path: Path) -> None:
    service = RunningService(
        tmp_path, command=(sys.executable, "-c", BROKEN), DATABASE_URL=url, AUTH_MODE="none", WORKERS="2"
    )
    with pytest.raises(
        RuntimeError, match="a worker ended before it served, with exit status 0: its log lines say why"
    ):
        service.start()
    assert service.process.returncode == 1
    assert not [line for line in service.lines if "listening" in line]
