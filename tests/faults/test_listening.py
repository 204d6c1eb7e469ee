"""Where it listens, and what its own database is kept from: a unix socket, draining, libpq's variables."""

import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import pytest

from tests.faults.test_stops import running
from tests.support.processes import AWAY, RunningService, serve_to_end, wait_ready
from tests.support.waiting import wait_until


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every account can pass through."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_unix_socket_is_for_its_group_and_gone_afterwards(database_url: str, tmp_path: Path, workers: str) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))  # what a killed service leaves
    with running(tmp_path, database_url, HOST=f"unix:{path}", WORKERS=workers) as service:
        assert service.url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x") as client:
            assert client.get("/livez").status_code == 200
        status, output = serve_to_end(tmp_path, DATABASE_URL=database_url, AUTH_MODE="none", HOST=f"unix:{path}")
        assert (status, output) == (1, f"Error: cannot listen on unix:{path}: Address already in use\n")
        assert service.stop() == 0
    assert not path.exists()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "s.sock").write_text("x")
    status, output = serve_to_end(tmp_path, DATABASE_URL=AWAY, AUTH_MODE="none", HOST=f"unix:{tmp_path}/s.sock")
    assert (status, output.count("\n")) == (1, 1)
    assert "the file exists and is not a socket" in output
    assert (tmp_path / "s.sock").read_text() == "x"


def test_while_it_drains_it_serves_and_is_not_ready(database_url: str, tmp_path: Path) -> None:
    with running(tmp_path, database_url, DRAIN_S="2") as service:
        wait_ready(service.url)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{service.url}/readyz").status_code == 503)
        for _ in range(5):  # one connection each
            assert httpx.get(f"{service.url}/api/u/tasks").status_code == 200
        assert service.process.wait(10) == 0


def test_libpq_variables_do_not_reach_its_own_database(reachable: Path) -> None:
    hostile = {
        "PGHOSTADDR": "10.0.0.1",
        "PGSERVICE": "nope",
        "PGPORT": "9",
        "PGOPTIONS": "-cfoo=bar",
        "PGDATA": "/nope",
    }
    with RunningService(reachable, AUTH_JWT_SECRET="s3cret" * 6, AUTH_MODE="jwt", **hostile) as service:
        wait_ready(service.url)
        postmaster = int((reachable / ".data" / "pgdata" / "postmaster.pid").read_text().split()[0])
        theirs = psutil.Process(postmaster).environ()
        assert not {name for name in theirs if name.startswith("PG") and name in hostile}
        assert "s3cret" not in str(theirs)
        roles = {process.cmdline()[0].split()[1] for process in psutil.Process(postmaster).children()}
        assert "tasks_app" in roles
        assert "tasks" not in roles  # the owner's connection, for the migration, is closed
