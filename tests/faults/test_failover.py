"""A primary that dies under load, and its standby that takes over: a URL with both hosts follows it."""

import asyncio
import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.operations import embedded, migrate
from service.operations.embedded import account, data_folder
from service.operations.embedded.temporary import Throwaway, temporary
from tests.faults.conftest import Serve
from tests.support.http import AsyncClient
from tests.support.ledger import Load
from tests.support.waiting import wait_until

CLIENTS = 16


class Standby:
    """A streaming replica of the cluster at `primary`, in `folder`."""

    def __init__(self, primary: str, folder: Path) -> None:
        self._data = folder / "standby"
        owner = pwd.getpwnam(account.NAME) if os.getuid() == 0 else None
        self._as = {
            "user": owner and owner.pw_uid,
            "group": owner and owner.pw_gid,
            "extra_groups": owner and [],
        }
        if owner:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        self._run("pg_basebackup", "-d", make_conninfo(primary, dbname=""), "-D", self._data, "-R", "-c", "fast")
        (self._data / f"{data_folder.SOCKET}.lock").unlink()  # the primary's, whose socket is in its data folder too
        options = f"-c listen_addresses= -c unix_socket_directories={self._data}"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-o", options, "-l", self._data / "log")
        self.url = make_conninfo(primary, host=str(self._data))

    def promote(self) -> None:
        self._run("pg_ctl", "promote", "-w", "-D", self._data)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", self._data)

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [embedded.bin_dir() / program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            **self._as,
        )
        log = self._data / "log"
        assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")


@pytest.fixture
def pair() -> Iterator[tuple[Throwaway, Standby]]:
    """A primary that commits only what its standby has, and that standby."""
    with temporary() as primary, TemporaryDirectory(prefix="standby-") as folder:
        migrate.apply(primary.url)
        standby = Standby(primary.url, Path(folder))
        try:
            with psycopg.connect(primary.url, autocommit=True) as admin:
                admin.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
                admin.execute("SELECT pg_reload_conf()")
                followers = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'"
                wait_until(lambda: admin.execute(followers).rowcount)
            yield primary, standby
        finally:
            with suppress(AssertionError):
                standby.stop()


async def test_writes_go_on_at_the_new_primary(pair: tuple[Throwaway, Standby], serve: Serve) -> None:
    primary, standby = pair
    hosts = ",".join(str(conninfo_to_dict(url)["host"]) for url in (primary.url, standby.url))
    service = serve(make_conninfo(primary.url, host=hosts, target_session_attrs="read-write"))
    async with Load(service.url, CLIENTS) as load:
        await load.more(200)
        await asyncio.to_thread(primary.crash)
        await asyncio.sleep(0.3)
        async with AsyncClient(service.url) as probe:
            assert (await probe.send("GET", "/livez")).status == 200
        await asyncio.to_thread(standby.promote)
        await load.more(1, within_s=2)
        await load.more(200)
    load.check(standby.url)
    assert load.cut == load.refused == len(load.untaken) == 0
    assert load.slowest_s < 5
