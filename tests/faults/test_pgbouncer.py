"""PgBouncer in transaction mode between the service and PostgreSQL: nothing changes, and its restart is survived."""

import asyncio
import os
import re
import subprocess
import sys
import time

import pytest

from tests.faults.conftest import Serve
from tests.support import pgbouncer
from tests.support.ledger import Load
from tests.support.processes import ROOT

pytestmark = pytest.mark.debian

CLIENTS = 16


async def test_restart_of_pgbouncer_loses_no_acknowledged_write(url: str, serve: Serve) -> None:
    with pgbouncer.running(url) as bouncer:
        service = serve(url, **bouncer.settings(url))
        async with Load(service.url, CLIENTS) as load:
            for _ in range(3):
                await load.more(100)
                bouncer.stop()
                await asyncio.sleep(0.3)
                await asyncio.to_thread(bouncer.start)
                back = time.monotonic()
                await load.more(1, within_s=2)
                await load.more(100)
                assert time.monotonic() - back < 4
        load.check(url)
        assert load.cut == load.refused == len(load.untaken) == 0
        service.stop()


def test_api_is_the_same_through_pgbouncer() -> None:
    """The tests of the API, with PgBouncer before their database."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/api", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=os.environ | {"TASKS_TEST_POOLED": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 1000
