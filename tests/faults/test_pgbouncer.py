"""PgBouncer in transaction mode, between the service and PostgreSQL: it restarts, and PostgreSQL changes behind it."""

import asyncio
import time

import psycopg
import pytest
from psycopg import sql

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


@pytest.mark.parametrize(("schema", "left"), [("public", ""), ("Our tasks", ""), ("public", "pg_catalog, elsewhere")])
async def test_search_path_that_another_client_left_in_a_session_is_not_followed(
    url: str, serve: Serve, schema: str, left: str
) -> None:
    """pg_dump and psql set one for their session, which through PgBouncer is the next client's, too."""
    with psycopg.connect(url, autocommit=True) as admin:
        if schema != "public":
            names = {"schema": sql.Identifier(schema), "database": sql.Identifier(admin.info.dbname)}
            admin.execute(sql.SQL("ALTER SCHEMA public RENAME TO {schema}").format(**names))
            admin.execute(sql.SQL("ALTER DATABASE {database} SET search_path = {schema}").format(**names))
    with pgbouncer.running(url, backends=1) as bouncer:
        with psycopg.connect(bouncer.url, autocommit=True) as other:
            other.execute("SELECT set_config('search_path', %s, false)", (left,))
        service = serve(url, **bouncer.settings(url))
        async with Load(service.url, CLIENTS) as load:
            await load.more(100)
        load.check(url)


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
