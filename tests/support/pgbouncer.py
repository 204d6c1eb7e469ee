"""The PgBouncer that is first in PATH (Debian's is 1.18), in transaction mode, before a cluster of the tests."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.operations.embedded import account
from tests.support.waiting import wait_until

BACKENDS = 3


def _program() -> str:
    return shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"


@cache
def keeps_prepared_statements() -> bool:
    """Whether `max_prepared_statements` is above 0 by default: since 1.24."""
    said = subprocess.run([_program(), "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    assert found is not None, said
    return (int(found[1]), int(found[2])) >= (1, 24)


class PgBouncer:
    """PgBouncer before the cluster of `upstream`, with so many connections to each of its databases. `settings` are
    PgBouncer's, where the tests' do not do.
    """

    def __init__(self, folder: Path, upstream: str, backends: int = BACKENDS, **settings: object) -> None:
        parts = conninfo_to_dict(upstream)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "users").write_text(f'"{parts["user"]}" ""\n')
        self._config = folder / "pgbouncer.ini"
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": folder / "users",
            "stats_users": parts["user"],  # may read its settings
            "pool_mode": "transaction",
            "default_pool_size": backends,
            "max_client_conn": 500,
            "server_login_retry": 1,
        } | settings
        lines = [f"{name} = {value}" for name, value in settings.items()]
        self._config.write_text("\n".join(["[databases]", f"* = host={parts['host']}", "[pgbouncer]", *lines]))
        self._log = folder / "log"
        self._host = parts["host"]
        self._address = {"host": "127.0.0.1", "port": port}
        self.url = make_conninfo(upstream, **self._address)

    def settings(self, url: str) -> dict[str, str]:
        """What has a service go through it to the database at `url`; nothing where that is of another cluster."""
        if conninfo_to_dict(url).get("host") != self._host:
            return {}
        prepare = "on" if keeps_prepared_statements() else "off"
        return {"DATABASE_URL": make_conninfo(url, **self._address), "DB_PREPARE": prepare}

    def start(self) -> None:
        # It refuses to run as root, and the cluster's socket is for the account that runs the cluster alone.
        owner = pwd.getpwnam(account.NAME) if os.getuid() == 0 else None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [_program(), self._config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=owner and owner.pw_uid,
                group=owner and owner.pw_gid,
                extra_groups=owner and [],
            )

        def accepts() -> bool:
            assert self._process.poll() is None, self._log.read_text()
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url, connect_timeout=2).close()
                return True
            return False

        wait_until(accepts, why=self._log.read_text)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """At once, like a crash. SIGINT lets transactions end first. SIGTERM is left out: before 1.23 it is immediate,
        since then it waits until every client is gone.
        """
        self._process.send_signal(number)
        self._process.wait(10)


@contextmanager
def running(upstream: str, backends: int = BACKENDS, **settings: object) -> Generator[PgBouncer]:
    """One that runs."""
    with TemporaryDirectory(prefix="bouncer-") as folder:
        Path(folder).chmod(0o755)
        bouncer = PgBouncer(Path(folder), upstream, backends, **settings)
        bouncer.start()
        try:
            yield bouncer
        finally:
            bouncer.stop()
