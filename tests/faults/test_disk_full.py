"""The database has no room left: writes are 503, reads go on, and once there is room all is well, without a restart."""

import asyncio
import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from service.operations import embedded
from service.operations.embedded import account
from tests.faults.conftest import Serve
from tests.support.http import AsyncClient


@pytest.fixture
def small() -> Iterator[Path]:
    """A file system of 4 MiB that belongs to the account that runs PostgreSQL."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small file system")
    owner = pwd.getpwnam(account.NAME)
    with TemporaryDirectory(prefix="small-") as folder:
        Path(folder).chmod(0o755)
        place = Path(folder) / "disk"
        place.mkdir()
        options = f"size=4m,mode=0700,uid={owner.pw_uid},gid={owner.pw_gid}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
        yield place
        subprocess.run(["umount", "--lazy", place], check=True)


async def test_full_disk_is_503_for_writes_while_reads_work(
    victim: embedded.Embedded, url: str, small: Path, serve: Serve
) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"CREATE TABLESPACE small LOCATION '{small}'".encode())
        try:
            admin.execute("ALTER TABLE tasks SET TABLESPACE small")
            service = serve(url)
            async with AsyncClient(service.url) as client:
                path = (await client.send("POST", "/api/u/tasks", {"title": "first"})).headers["location"]
                created = 1
                end = time.monotonic() + 20
                while True:
                    batch = [{"title": "x", "description": "y" * 4000}] * 50
                    answer = await client.send("POST", "/api/u/tasks/batch", batch)
                    if answer.status != 201:
                        break
                    created += len(batch)
                    assert time.monotonic() < end
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert answer.json() == {"error": "Service is temporarily unavailable"}
                assert service.logged(status=503, route="/api/{user_id}/tasks/batch")["sqlstate"] == "53100"
                assert b'tasks_database_failures_total{sqlstate_class="53"} 1.0' in (
                    (await client.send("GET", "/metrics")).body
                )
                assert (await client.send("GET", "/readyz")).status == 200  # reads are served
                assert (await client.send("GET", path)).json()["title"] == "first"
                assert len((await client.send("GET", "/api/u/tasks?limit=1000")).json()) == min(created, 1000)
                # Room is made: what was refused left dead rows behind, which VACUUM gives back.
                await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,size=16m", str(small)], check=True)
                assert (await client.send("POST", "/api/u/tasks/batch", batch)).status == 201
                assert (await client.send("PUT", path, {"title": "changed"})).status == 200
            service.stop()
        finally:
            admin.execute("ALTER TABLE tasks SET TABLESPACE pg_default")
            admin.execute("DROP TABLESPACE small")
