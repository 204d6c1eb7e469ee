"""PgBouncer in transaction mode, between the service and PostgreSQL, is restarted."""

import asyncio
import time

import pytest

from tests.faults.conftest import Serve
from tests.support import pgbouncer
from tests.support.ledger import Load

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
