"""A database that is not what it should be when the service starts, or not any more while it runs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.operations.embedded import Embedded
from tests.faults.conftest import Serve
from tests.support.databases import TEMPLATE, create, named, terminate
from tests.support.http import AsyncClient
from tests.support.processes import RunningService, wait_ready
from tests.support.waiting import until

UNAVAILABLE = (503, {"error": "Service is temporarily unavailable"})


@pytest.fixture
def admin(url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


async def ask(service: RunningService, path: str) -> tuple[int, object]:
    async with AsyncClient(service.url) as client:
        answer = await client.send("GET", path)
        return answer.status, answer.json()


async def waits_and_says(service: RunningService, why: str) -> None:
    """It lives, is not ready, and its log says why, once."""
    assert await ask(service, "/livez") == (200, {"status": "ok"})
    assert await ask(service, "/readyz") == (503, {"error": "The database cannot be reached"})
    assert await ask(service, "/api/u/tasks") == UNAVAILABLE
    said = [line for line in service.lines if why in line and '"service.database"' in line]
    assert len(said) == 1


async def test_wrong_password_is_503_until_it_is_right(
    victim: Embedded, url: str, admin: psycopg.Connection, serve: Serve
) -> None:
    rules = Path(str(conninfo_to_dict(victim.url)["host"])) / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text("local all locked scram-sha-256\n" + before)
    admin.execute("CREATE ROLE locked LOGIN PASSWORD 'right' IN ROLE tasks_service; SELECT pg_reload_conf()")
    try:
        service = serve(make_conninfo(url, user="locked", password="wr0ng-s3cret"), ready=False)
        await waits_and_says(service, 'password authentication failed for user \\"locked\\"')
        admin.execute("ALTER ROLE locked PASSWORD 'wr0ng-s3cret'")
        wait_ready(service.url)
        assert await ask(service, "/api/u/tasks") == (200, [])
        assert "wr0ng-s3cret" not in "\n".join(service.lines)
        service.stop()
    finally:
        rules.write_text(before)
        admin.execute("DROP ROLE locked; SELECT pg_reload_conf()")


async def test_database_that_does_not_exist_yet_is_503_until_it_does(url: str, serve: Serve) -> None:
    service = serve(named(url, "comes_later"), ready=False)
    await waits_and_says(service, 'database \\"comes_later\\" does not exist')
    create(url, "comes_later", TEMPLATE)
    wait_ready(service.url)
    assert await ask(service, "/api/u/tasks") == (200, [])


async def test_missing_table_is_503_and_named_in_the_log(url: str, admin: psycopg.Connection, serve: Serve) -> None:
    admin.execute("ALTER TABLE tasks RENAME TO mislaid")
    service = serve(url, ready=False)
    said = await asyncio.to_thread(service.logged, logger="service.database", level="error")
    assert said["message"].startswith("a statement does not fit the database's schema: ")
    assert said["message"].endswith('relation "public.tasks" does not exist; run `tasks-service check`')
    assert await ask(service, "/livez") == (200, {"status": "ok"})
    assert await ask(service, "/readyz") == (
        503,
        {"error": "The database's schema does not fit this version of the service"},
    )
    assert await ask(service, "/api/u/tasks") == UNAVAILABLE
    assert service.logged(status=503, route="/api/{user_id}/tasks")["sqlstate"] == "42P01"
    admin.execute("ALTER TABLE mislaid RENAME TO tasks")
    wait_ready(service.url)
    assert await ask(service, "/api/u/tasks") == (200, [])


async def test_revoked_privilege_is_503_until_it_is_granted(url: str, admin: psycopg.Connection, serve: Serve) -> None:
    admin.execute("CREATE ROLE bound LOGIN IN ROLE tasks_service")
    service = serve(make_conninfo(url, user="bound"))
    assert await ask(service, "/api/u/tasks") == (200, [])
    admin.execute("REVOKE SELECT ON tasks FROM tasks_service")
    try:
        assert await ask(service, "/api/u/tasks") == UNAVAILABLE
        assert service.logged(status=503, route="/api/{user_id}/tasks")["sqlstate"] == "42501"
        assert (await ask(service, "/readyz"))[0] == 503
        said = await asyncio.to_thread(service.logged, logger="service.database", level="error")
        assert said["message"].endswith("permission denied for table tasks; run `tasks-service check`")
    finally:
        admin.execute(
            "GRANT SELECT (user_id, id, title, description, completed, version, created_at, updated_at)"
            " ON tasks TO tasks_service"
        )
    wait_ready(service.url)
    assert await ask(service, "/api/u/tasks") == (200, [])


async def test_a_database_that_is_set_to_read_only_is_not_ready_until_it_is_reset(
    url: str, admin: psycopg.Connection, serve: Serve
) -> None:
    name = admin.info.dbname
    admin.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    service = serve(url, ready=False)
    read_only = (503, {"error": "The database is set to read-only, so writes fail"})

    async def is_said() -> bool:
        return await ask(service, "/readyz") == read_only

    await until(is_said)
    assert await ask(service, "/api/u/tasks") == (200, [])
    async with AsyncClient(service.url) as client:
        answer = await client.send("POST", "/api/u/tasks", body={"title": "a"})
    assert answer.status == 503
    assert service.logged(status=503, route="/api/{user_id}/tasks")["sqlstate"] == "25006"
    admin.execute("SET default_transaction_read_only = off")
    admin.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only".encode())
    terminate(admin)
    await ask(service, "/api/u/tasks")
    wait_ready(service.url)


async def test_table_that_goes_and_comes_back_is_503_meanwhile(
    url: str, admin: psycopg.Connection, serve: Serve
) -> None:
    service = serve(url)
    assert await ask(service, "/api/u/tasks") == (200, [])
    admin.execute("ALTER TABLE tasks RENAME TO mislaid")
    assert await ask(service, "/api/u/tasks") == UNAVAILABLE
    admin.execute("ALTER TABLE mislaid RENAME TO tasks")
    assert await ask(service, "/api/u/tasks") == (200, [])


async def test_serve_with_a_schema_that_is_behind_exits_and_says_what_to_run(url: str, serve: Serve) -> None:
    with pytest.raises(RuntimeError, match=r"the schema is behind: 0001[^\n]* run `tasks-service migrate apply`"):
        serve(create(url))


async def test_serve_with_a_schema_that_is_ahead_warns(url: str, admin: psycopg.Connection, serve: Serve) -> None:
    admin.execute(
        "INSERT INTO _yoyo_migration (migration_hash, migration_id, applied_at_utc)"
        " VALUES ('9999', '9999.of-tomorrow', now())"
    )
    service = serve(url)
    assert service.logged(level="warning", message="the schema is ahead of this version: 9999.of-tomorrow")
    assert await ask(service, "/api/u/tasks") == (200, [])
