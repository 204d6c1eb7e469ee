"""A user's rights, the database as a file, a token for development. The commands run in this process."""

import json
import os
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from service.operations import embedded, migrate, users
from service.operations.cli import cli
from service.operations.embedded.temporary import Throwaway
from tests.support.databases import create

pytestmark = pytest.mark.migrations


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(url: str, *arguments: str, **settings: str) -> Result:
    return CliRunner().invoke(cli, arguments, env={"DATABASE_URL": url} | settings)


def fill(url: str, tasks: int = 25) -> None:
    """Two users: `u` with tasks and a key, `other` with one task."""
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO users (id) VALUES ('u'), ('other')")
        connection.execute(
            "INSERT INTO tasks (user_id, title) SELECT 'u', 'é ' || n FROM generate_series(1, %s) n", (tasks,)
        )
        connection.execute("INSERT INTO tasks (user_id, title) VALUES ('other', 'x')")
        connection.execute("INSERT INTO idempotency_keys VALUES ('u', 'create', 'k', '', '{1}')")


def counts(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        tables = ("users", "tasks", "idempotency_keys")
        return [connection.execute(f"SELECT FROM {table}").rowcount for table in tables]


def test_export_is_everything_of_one_user_in_lines(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "FETCH_ROWS", 10)
    fill(database_url)
    done = run(database_url, "user", "export", "u")
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [next(iter(line)) for line in lines] == ["user", *["task"] * 25, "idempotency_key"]
    assert lines[0]["user"]["id"] == "u"
    assert {line["task"]["user_id"] for line in lines[1:-1]} == {"u"}
    assert lines[1]["task"]["title"] == "é 1"
    assert lines[-1]["idempotency_key"] == lines[-1]["idempotency_key"] | {"key": "k", "task_ids": [1]}


def test_delete_takes_one_user_in_batches(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "BATCH_ROWS", 10)
    fill(database_url)
    done = run(database_url, "user", "delete", "u", "--yes", "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"tasks": 25, "left": False})
    assert counts(database_url) == [1, 1, 0]


def test_delete_asks_first(database_url: str) -> None:
    fill(database_url)
    assert run(database_url, "user", "delete", "u").exit_code == 1
    assert counts(database_url) == [2, 26, 1]


@pytest.mark.parametrize("command", [("export",), ("delete", "--yes")])
def test_an_unknown_user_is_said_in_a_line(database_url: str, command: tuple[str, ...]) -> None:
    done = run(database_url, "user", *command, "nobody")
    assert (done.exit_code, done.output) == (1, "Error: there is no such user\n")


def test_a_dump_of_another_schema_is_restored_before_that_is_there(database_url: str) -> None:
    """The search path may name it already. Where it does not, the next migrate apply would begin in public."""
    name = "Our tasks"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER SCHEMA public RENAME TO {}").format(sql.Identifier(name)))
        path = sql.SQL("ALTER DATABASE {} SET search_path = {}")
        connection.execute(path.format(sql.Identifier(connection.info.dbname), sql.Identifier(name)))
    fill(database_url)
    assert run(database_url, "dump", "d").exit_code == 0
    named, unnamed = create(database_url), create(database_url)
    with psycopg.connect(named, autocommit=True) as connection:
        connection.execute(path.format(sql.Identifier(connection.info.dbname), sql.Identifier(name)))
    assert run(named, "restore", "d").output == "restored d\n"
    assert counts(named) == [2, 26, 1]
    database = conninfo_to_dict(unnamed)["dbname"]
    assert run(unnamed, "restore", "d").output.splitlines() == [
        "restored d",
        'warning: the tables are in schema "Our tasks", and the search path of role tasks does not lead there: '
        f'ALTER ROLE tasks IN DATABASE {database} SET search_path = "Our tasks", and so for the service\'s role',
    ]


def test_a_dump_is_restored_into_an_empty_database_only(database_url: str, folder: Path) -> None:
    fill(database_url)
    assert run(database_url, "dump", "d").output == "dumped to d\n"
    assert run(database_url, "dump", "d").exit_code == 1  # nothing is overwritten
    empty = create(database_url, "restored")
    assert run(empty, "restore", "d").output == "restored d\n"
    assert counts(empty) == [2, 26, 1]
    assert [state.state for state in migrate.status(empty)] == ["applied"] * len(migrate.status(empty))
    done = run(empty, "restore", "d")
    assert (done.exit_code, done.output) == (1, "Error: the database is not empty: restore into an empty one\n")
    assert counts(empty) == [2, 26, 1]


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_dump_that_was_cut_off_is_not_begun(database_url: str, folder: Path, part: float) -> None:
    fill(database_url)
    run(database_url, "dump", "d")
    whole = (folder / "d").read_bytes()
    (folder / "d").write_bytes(whole[: int(len(whole) * part)])
    empty = create(database_url, f"cut_{int(part * 10)}")
    done = run(empty, "restore", "d")
    assert done.exit_code == 1
    assert done.output.startswith("Error: d is not a whole dump of `tasks-service dump`: ")
    with psycopg.connect(empty) as connection:
        assert connection.execute("SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace").rowcount == 0


@pytest.mark.slow
def test_data_moves_to_the_next_major_version(reachable: Path) -> None:
    """As deploy/README.md has it, between the two versions that the package carries."""
    old, new = reachable / "old", reachable / "new"
    with Throwaway(old, version=16) as cluster:
        migrate.apply(cluster.url)
        fill(cluster.url)
    environ = {"DATABASE_URL": "", "TASKS_DATA_DIR": str(old)}
    done = CliRunner().invoke(cli, ["psql", "-c", "SELECT 1"], env=environ)
    assert "was made by PostgreSQL 16 and this is 18" in done.output
    assert CliRunner().invoke(cli, ["dump", "d"], env=environ).output == "dumped to d\n"
    environ["TASKS_DATA_DIR"] = str(new)
    assert CliRunner().invoke(cli, ["restore", "d"], env=environ).output == "restored d\n"
    with Throwaway(new) as cluster:
        assert counts(cluster.url) == [2, 26, 1]


FAILS_LATE = """
CREATE SCHEMA theirs;
CREATE FUNCTION theirs.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not here'; END $$;
CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION theirs.refuse();
"""


@pytest.mark.migrations
def test_a_dump_goes_to_an_older_server_all_or_nothing(database_url: str, reachable: Path, folder: Path) -> None:
    fill(database_url)
    assert run(database_url, "dump", "d").output == "dumped to d\n"
    with Throwaway(reachable / "older", version=16) as cluster:
        empty, fails = create(cluster.url), create(cluster.url)
        assert run(empty, "restore", "d").output == "restored d\n"
        assert counts(empty) == counts(database_url)
        with psycopg.connect(fails, autocommit=True) as admin:
            admin.execute(FAILS_LATE)
            done = run(fails, "restore", "d")
            assert (done.exit_code, done.output) == (1, "Error: nothing was restored: not here\n")
            assert admin.execute("SELECT FROM pg_tables WHERE schemaname = 'public'").rowcount == 0


def test_an_older_pg_dump_is_named(database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = folder / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 14.9 (Debian 14.9-1)'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(embedded, "find", lambda name: None)
    done = run(database_url, "dump", "d")
    assert done.exit_code == 1
    assert done.output.startswith(
        f"Error: {old} is PostgreSQL 14's and the server is 18: install PostgreSQL 18's client"
    )


def test_a_token_is_made_with_the_secret_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import jwt

    secret = "s" * 32
    done = run("", "token", "u", AUTH_JWT_SECRET=secret, AUTH_AUDIENCE="a", AUTH_ISSUER="i")
    claims = jwt.decode(done.output.strip(), secret, ["HS256"], audience="a", issuer="i")
    assert (claims["sub"], claims["exp"] - claims["iat"]) == ("u", 3600)
    for settings, said in (
        ({}, "AUTH_JWT_SECRET is not set"),
        ({"AUTH_JWKS_URL": "https://a.example"}, "AUTH_JWKS_URL is set: only the provider"),
        ({"AUTH_JWT_SECRET": "short"}, "AUTH_JWT_SECRET must be at least 32 bytes"),
    ):
        done = run("", "token", "u", **settings)
        assert done.exit_code == 1
        assert done.output.startswith(f"Error: {said}")
