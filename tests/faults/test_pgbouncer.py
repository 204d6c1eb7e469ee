"""PgBouncer in transaction mode, between the service and PostgreSQL: it restarts, and PostgreSQL changes behind it."""

import asyncio
import time

import psycopg
import pytest

from service.operations.embedded import Embedded
from tests.faults.conftest import Serve
from tests.faults.test_postgres_ends import gone, kill
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


async def test_database_that_was_away_behind_pgbouncer_is_used_within_2_s(
    victim: Embedded, url: str, serve: Serve
) -> None:
    """PgBouncer tries again every `server_login_retry` seconds: 1 here, 15 by default."""
    with pgbouncer.running(url) as bouncer:
        service = serve(url, **bouncer.settings(url))
        async with Load(service.url, CLIENTS) as load:
            for _ in range(2):
                await load.more(100)
                kill(victim)
                await gone(victim)
                await asyncio.sleep(2)  # away for long enough that PgBouncer has failed to log in
                await asyncio.to_thread(victim.ensure_running)
                await load.more(1, within_s=2)
            await load.more(100)
        load.check(url)
        assert load.cut == load.refused == len(load.untaken) == 0


async def test_changed_column_type_behind_pgbouncer_is_a_500_for_nobody(url: str, serve: Serve) -> None:
    with pgbouncer.running(url) as bouncer, psycopg.connect(url, autocommit=True) as admin:
        service = serve(url, **bouncer.settings(url))
        async with Load(service.url, CLIENTS) as load:
            for kind in ("varchar(255)", "text", "varchar(255)"):
                await load.more(100)
                admin.execute(f"ALTER TABLE tasks ALTER COLUMN title TYPE {kind}".encode())
            await load.more(100)
        load.check(url)
        assert load.statuses.keys() == {200, 201}
