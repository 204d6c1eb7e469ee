"""Where it listens, and what its own database is kept from: a unix socket, draining, libpq's variables."""

import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.faults.test_stops import running
from tests.support.http import connect, exchange, read_response, request
from tests.support.processes import AWAY, ROOT, RunningService, serve_to_end, wait_ready
from tests.support.reverse_proxies import free_port
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
        assert (status, output) == (
            1,
            f"Error: cannot listen on unix:{path}: Address already in use; set another HOST\n",
        )
        assert service.stop() == 0
    assert not path.exists()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    (tmp_path / "s.sock").write_text("x")
    status, output = serve_to_end(tmp_path, DATABASE_URL=AWAY, AUTH_MODE="none", HOST=f"unix:{tmp_path}/s.sock")
    assert (status, output.count("\n")) == (1, 1)
    assert "the file exists and is not a socket" in output
    assert (tmp_path / "s.sock").read_text() == "x"


def test_a_unix_socket_of_a_listener_that_hangs_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with ExitStack() as stack:
        hangs = stack.enter_context(socket.socket(socket.AF_UNIX))
        hangs.bind(str(path))
        hangs.listen(0)
        with suppress(BlockingIOError):  # its queue is full
            while True:
                waits = stack.enter_context(socket.socket(socket.AF_UNIX))
                waits.setblocking(False)
                waits.connect(str(path))
        status, output = serve_to_end(tmp_path, DATABASE_URL=AWAY, AUTH_MODE="none", HOST=f"unix:{path}")
    assert (status, output) == (1, f"Error: cannot listen on unix:{path}: Address already in use; set another HOST\n")


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_of_two_that_start_on_one_address_the_second_to_listen_ends(
    database_url: str, tmp_path: Path, kind: str
) -> None:
    """Both can bind, because neither listens yet: one of them waits for its database."""
    address = {"HOST": f"unix:{tmp_path}/s.sock"} if kind == "unix" else {"PORT": f"{free_port()}"}
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as pool:
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/x"
        second = pool.submit(serve_to_end, tmp_path, DATABASE_URL=url, AUTH_MODE="none", **address)
        connection, _ = silent.accept()
        with connection, running(tmp_path, database_url, **address) as service:
            silent.close()
            connection.close()
            status, output = second.result()
            assert status == 1
            assert "Address already in use; set another HOST" in output
            assert "listening" not in output
            with service_client(service) as client:
                assert client.get("/livez").status_code == 200


def service_client(service: RunningService) -> httpx.Client:
    path = service.url.removeprefix("unix:") if service.url.startswith("unix:") else None
    return httpx.Client(transport=httpx.HTTPTransport(uds=path), base_url="http://x" if path else service.url)


def test_a_unix_socket_has_the_group_of_a_folder_with_the_setgid_bit(database_url: str, reachable: Path) -> None:
    """So a proxy's group can be had without a setting."""
    group = 12345
    try:
        os.chown(reachable, -1, group)
    except PermissionError:
        pytest.skip("only root can give a folder to any group")
    reachable.chmod(0o2750)
    with running(reachable, database_url, HOST=f"unix:{reachable}/s.sock"):
        found = (reachable / "s.sock").stat()
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (group, 0o660)


HANDS_OVER = """
import os, sys
for number, given in enumerate(sys.argv[1:], 3):
    os.dup2(int(given), number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sys.argv) - 1))
os.execv(sys.executable, [sys.executable, "-m", "service", "serve"])
"""


def handed_over(folder: Path, *sockets: socket.socket, **settings: str) -> "subprocess.Popen[str]":
    """`serve` as systemd starts it, with these sockets."""
    descriptors = [fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 10) for one in sockets]  # none of those that it uses
    try:
        return subprocess.Popen(
            [sys.executable, "-c", HANDS_OVER, *map(str, descriptors)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LOG_FORMAT": "console"} | settings,
            cwd=folder,
            pass_fds=descriptors,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def end_of(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """The exit status and the output of one that is expected to end."""
    try:
        _, output = process.communicate(timeout=20)
    finally:
        process.kill()
    return process.returncode, output


def test_a_socket_that_systemd_hands_over_is_served_and_stays(database_url: str, tmp_path: Path) -> None:
    path = tmp_path / "theirs.sock"
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(path))
        theirs.listen()
        process = handed_over(tmp_path, theirs, DATABASE_URL=database_url, AUTH_MODE="none", HOST="unix:/nowhere")
        try:
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x") as client:
                assert client.get("/livez", timeout=20).status_code == 200  # it waited in the queue for the start
            process.terminate()
            process.communicate(timeout=10)
            assert process.returncode == 0
        finally:
            process.kill()
            process.communicate()
    assert path.is_socket()


def test_what_systemd_hands_over_and_cannot_be_served_stops_the_start(tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(listener.getsockname()))  # Accept=yes
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        for given, reason in (
            ((listener, listener), "there are 2 sockets: leave one ListenStream= in the .socket unit"),
            ((client,), "it does not listen: the .socket unit needs ListenStream= and Accept=no"),
            ((datagrams,), "it does not listen: the .socket unit needs ListenStream= and Accept=no"),
        ):
            process = handed_over(tmp_path, *given, DATABASE_URL=AWAY, AUTH_MODE="none")
            status, output = end_of(process)
            assert (status, output) == (1, f"Error: cannot listen on what systemd hands over: {reason}\n")


def test_the_address_that_systemd_hands_over_decides_whether_callers_must_be_known(tmp_path: Path) -> None:
    """HOST, which is not used, would be loopback."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        process = handed_over(tmp_path, listener)
        status, output = end_of(process)
    assert status == 1
    assert "AUTH_MODE must be set" in output


def test_an_idle_connection_is_closed_after_keep_alive_s(database_url: str, tmp_path: Path) -> None:
    with running(tmp_path, database_url, KEEP_ALIVE_S="1") as service, connect(service.url) as one:
        one.sendall(request("GET", "/livez"))
        assert read_response(one).status == 200
        begin = time.monotonic()
        assert one.recv(1) == b""
        assert 0.5 < time.monotonic() - begin < 3.5  # times are checked once a second


def test_the_log_has_the_client_that_a_trusted_proxy_names(database_url: str, tmp_path: Path) -> None:
    """A client of a unix socket has no address."""
    path = tmp_path / "s.sock"
    forwarded = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7"}
    settings = {"ACCESS_LOG": "true", "LOG_FORMAT": "json"}
    with running(tmp_path, database_url, HOST=f"unix:{path}", TRUSTED_PROXIES="*", **settings) as service:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://x") as client:
            assert client.get("/api/u/tasks", headers=forwarded).status_code == 200
        assert service.logged(route="/api/{user_id}/tasks", status=200)["client"] == "198.51.100.7"
    for proxies, client in (
        ("127.0.0.0/8", "198.51.100.7"),
        ("127.0.0.1,198.51.100.7", "203.0.113.9"),
        ("", "127.0.0.1"),
    ):
        with running(tmp_path, database_url, TRUSTED_PROXIES=proxies, **settings) as service:
            assert service.http.get("/api/u/tasks", headers=forwarded).status_code == 200
            assert service.logged(route="/api/{user_id}/tasks", status=200)["client"] == client


def test_a_client_of_ipv4_is_the_same_where_it_listens_on_ipv6(database_url: str, tmp_path: Path) -> None:
    settings = {"HOST": "::", "TRUSTED_PROXIES": "127.0.0.1", "ACCESS_LOG": "true", "LOG_FORMAT": "json"}
    with running(tmp_path, database_url, **settings) as service:
        url = f"http://127.0.0.1:{urlsplit(service.url).port}/api/u/tasks"
        for forwarded, client in (({}, "127.0.0.1"), ({"X-Forwarded-For": "192.0.2.7"}, "192.0.2.7")):
            assert httpx.get(url, headers=forwarded).status_code == 200
            assert service.logged(client=client)


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


@pytest.mark.parametrize("workers", ["1", "2"])
def test_operators_paths_have_their_own_port(url: str, tmp_path: Path, workers: str) -> None:
    admin = free_port()
    settings = {"DATABASE_URL": url, "AUTH_MODE": "none", "ADMIN_PORT": str(admin), "WORKERS": workers}
    with RunningService(tmp_path, **settings) as service:
        wait_ready(f"http://127.0.0.1:{admin}")
        for path, of_operators in {
            **dict.fromkeys(("/livez", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/start.js", "/"), True),
            **dict.fromkeys(("/api/u/tasks", "/api/u/tasks/1", "/docsx", "/nowhere"), False),
        }.items():
            get = request("GET", path)
            here, there = exchange(service.url, get), exchange(f"http://127.0.0.1:{admin}", get)
            hidden, served = (here, there) if of_operators else (there, here)
            assert (hidden.status, hidden.body) == (404, b'{"error":"Not found"}')
            assert served.body != hidden.body or path in ("/docsx", "/nowhere")
        assert exchange(service.url, request("POST", "/api/u/tasks", b'{"title": "x"}')).status == 201
        scraped = request("GET", "/metrics", headers={"Host": "tasks.example.com"})
        assert exchange(f"http://127.0.0.1:{admin}", scraped).status == 200  # it may listen on another address
        assert service.stop() == 0
