"""Debian's PgBouncer in transaction mode, before a cluster of the tests."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.operations.embedded import account
from tests.support.waiting import wait_until

BACKENDS = 3


class PgBouncer:
    """PgBouncer before the cluster of `upstream`, with so many connections to each of its databases."""

    def __init__(self, folder: Path, upstream: str, backends: int = BACKENDS) -> None:
        parts = conninfo_to_dict(upstream)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (folder / "users").write_text(f'"{parts["user"]}" ""\n')
        self._config = folder / "pgbouncer.ini"
        self._config.write_text(f"""
            [databases]
            * = host={parts["host"]}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {folder / "users"}
            pool_mode = transaction
            default_pool_size = {backends}
            max_client_conn = 500
        """)
        self._log = folder / "log"
        self._host = parts["host"]
        self._address = {"host": "127.0.0.1", "port": port}
        self.url = make_conninfo(upstream, **self._address)

    def settings(self, url: str) -> dict[str, str]:
        """What has a service go through it to the database at `url`; nothing where that is of another cluster."""
        if conninfo_to_dict(url).get("host") != self._host:
            return {}
        return {"DATABASE_URL": make_conninfo(url, **self._address), "DB_PREPARE": "off"}

    def start(self) -> None:
        # It refuses to run as root, and the cluster's socket is for the account that runs the cluster alone.
        owner = pwd.getpwnam(account.NAME) if os.getuid() == 0 else None
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, self._config],
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

    def stop(self) -> None:
        """At once, like a crash: SIGTERM is an immediate shutdown."""
        self._process.terminate()
        self._process.wait(10)


@contextmanager
def running(upstream: str, backends: int = BACKENDS) -> Generator[PgBouncer]:
    """One that runs."""
    with TemporaryDirectory(prefix="bouncer-") as folder:
        Path(folder).chmod(0o755)
        bouncer = PgBouncer(Path(folder), upstream, backends)
        bouncer.start()
        try:
            yield bouncer
        finally:
            bouncer.stop()
