"""Migrations and `check` through PgBouncer in transaction mode: what is safe goes on, the rest says why not."""

import threading
from collections.abc import Iterator

import psycopg
import pytest
from click.testing import CliRunner

from service.operations import check, migrate
from service.operations.migrate import MigrationError, session
from tests.support import pgbouncer
from tests.support.databases import applied, relations, schema
from tests.support.pgbouncer import keeps_prepared_statements

pytestmark = pytest.mark.debian

IDS = migrate.ids()


@pytest.fixture
def pooled(empty: str) -> Iterator[str]:
    """The empty database's URL, through the pooler."""
    with pgbouncer.running(empty) as bouncer:
        yield bouncer.url


def test_a_pooler_is_told_from_a_server(pooled: str, empty: str) -> None:
    for url, is_pooled in ((pooled, True), (empty, False)):
        with session.connect(url) as connected:
            assert connected.pooled is is_pooled


def test_what_runs_outside_a_transaction_is_refused(pooled: str, empty: str) -> None:
    with pytest.raises(MigrationError, match=r"pooler and 0003\.index-open-tasks runs outside a transaction: set MIGR"):
        migrate.apply(pooled)
    with pytest.raises(MigrationError, match=r"pooler and the first migration makes the bookkeeping: set MIGRATION_DA"):
        migrate.apply(pooled, to="0002")
    assert relations(empty) == []
    migrate.apply(empty)
    before = schema(empty)
    with pytest.raises(MigrationError, match=r"pooler and 0008\.drop-email-key runs outside a transaction"):
        migrate.rollback(pooled, to="0002")
    assert schema(empty) == before


def test_looking_is_safe(pooled: str, empty: str) -> None:
    assert [state.state for state in migrate.status(pooled)] == ["pending"] * len(IDS)
    assert [migration.id for migration in migrate.plan_apply(pooled)] == IDS
    assert relations(empty) == []


def test_what_fits_into_a_transaction_goes_on(pooled: str, empty: str, undisturbed: str) -> None:
    migrate.apply(empty, to="0003")
    done: list[list[str]] = []
    crowd = [threading.Thread(target=lambda: done.append(migrate.apply(pooled))) for _ in range(3)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(30)
    assert sorted(done) == [[], [], IDS[3:]]
    assert applied(empty) == IDS
    migrate.rollback(empty)  # its rollback builds an index outside a transaction
    assert migrate.rollback(pooled) == [IDS[-2]]
    assert migrate.apply(pooled) == IDS[-2:]
    assert schema(empty) == undisturbed


def test_no_setting_stays_with_the_next_client(pooled: str, empty: str) -> None:
    migrate.apply(empty, to="0004")
    migrate.apply(pooled)
    with psycopg.connect(pooled) as first, psycopg.connect(pooled) as second, psycopg.connect(pooled) as third:
        for client in (first, second, third):  # in transactions at once, so each has its own backend
            assert client.execute("SHOW lock_timeout").fetchone() == ("0",)
            assert client.execute("SHOW client_connection_check_interval").fetchone() == ("0",)


@pytest.mark.parametrize("prepare", ["on", "off"])
def test_check_knows_a_pooler_without_prepared_statements(
    pooled: str, empty: str, monkeypatch: pytest.MonkeyPatch, prepare: str
) -> None:
    migrate.apply(empty)
    for name, value in {"DATABASE_URL": pooled, "AUTH_MODE": "none", "DB_PREPARE": prepare}.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(check.check)
    errors = [line for line in done.stdout.splitlines() if line.startswith("error")]
    if prepare == "on" and not keeps_prepared_statements():
        assert done.exit_code == len(errors) == 1
        assert "set DB_PREPARE=false" in done.stdout
    else:
        assert done.exit_code == len(errors) == 0
        said = "keeps track of prepared statements" if prepare == "on" else "no prepared statements are used"
        assert f"ok       pooler: {said}" in done.stdout
    with psycopg.connect(pooled) as first, psycopg.connect(pooled) as second, psycopg.connect(pooled) as third:
        for client in (first, second, third):
            left = client.execute("SELECT FROM pg_prepared_statements WHERE name NOT LIKE 'PGBOUNCER%'").fetchall()
            assert left == []  # but what PgBouncer keeps for all clients


def test_migrations_that_would_go_through_a_pooler_are_noted(
    pooled: str, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.apply(empty)
    for name, value in {"DATABASE_URL": empty, "AUTH_MODE": "none", "MIGRATION_DATABASE_URL": pooled}.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(check.check)
    assert "warning  MIGRATION_DATABASE_URL goes through a pooler: give it the direct endpoint" in done.stdout


def test_check_says_which_of_pgbouncers_settings_do_harm(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The role may read them. The defaults: 15 s until PgBouncer tries again, and 100 clients."""
    migrate.apply(empty)
    monkeypatch.setenv("AUTH_MODE", "none")
    monkeypatch.setenv("DB_PREPARE", "off")
    monkeypatch.setenv("DB_CONNECTIONS", "60")
    monkeypatch.setenv("WORKERS", "2")
    with pgbouncer.running(empty, server_login_retry=15, max_client_conn=100) as harmful:
        monkeypatch.setenv("DATABASE_URL", harmful.url)
        said = CliRunner().invoke(check.check).stdout
    assert "warning  pooler: server_login_retry is 15, so requests get 503 for up to 15 s after an outage" in said
    assert "warning  pooler: max_client_conn is 100, and this service opens up to 120 connections" in said
    for settings in ({}, {"server_login_retry": 15, "stats_users": "somebody"}):
        with pgbouncer.running(empty, **settings) as harmless:
            monkeypatch.setenv("DATABASE_URL", harmless.url)
            said = CliRunner().invoke(check.check)
        assert said.exit_code == 0
        assert "warning  pooler" not in said.stdout
