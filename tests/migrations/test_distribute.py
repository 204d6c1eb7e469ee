"""`migrate distribute` against a stand-in that answers as Citus' functions do (tests/support/citus.py)."""

from collections.abc import Callable

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import make_conninfo

from service.operations import migrate
from service.operations.cli import cli
from tests.support import citus

pytestmark = pytest.mark.migrations

Run = Callable[..., Result]

DONE = [
    "done distributed users by id",
    "done distributed tasks by user_id",
    "done distributed idempotency_keys by user_id",
    "done copied _yoyo_migration to every node",
    "done granted the service's role what Citus needs",
    "done granted the sequence on the workers",
]


@pytest.fixture
def url(make_empty: Callable[[], str]) -> str:
    """A migrated database with the stand-in."""
    url = make_empty()
    migrate.apply(url)
    citus.install(url)
    return url


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("AUTH_MODE", "none")
    return lambda *arguments: CliRunner().invoke(cli, arguments)


def execute(url: str, text: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text.encode())
        return cursor.fetchall() if cursor.description else []


def placed(url: str) -> list[tuple[object, ...]]:
    return execute(
        url, "SELECT logicalrelid::text, partmethod::text, partkey, colocationid FROM pg_dist_partition ORDER BY 1"
    )


def test_it_distributes_what_belongs_together_and_can_be_repeated(run: Run, url: str) -> None:
    done = run("migrate", "distribute")
    assert done.stdout.splitlines() == DONE
    assert placed(url) == [
        ("_yoyo_migration", "n", None, 99),
        ("idempotency_keys", "h", "user_id", 1),
        ("tasks", "h", "user_id", 1),
        ("users", "h", "id", 1),
    ]
    assert execute(url, "TABLE worker_commands") == [("GRANT USAGE ON SEQUENCE public.tasks_id_seq TO tasks_service",)]
    before = placed(url)
    again = run("migrate", "distribute")
    assert again.exit_code == 0
    assert again.stdout.splitlines() == DONE[4:]
    assert placed(url) == before


def test_what_was_cut_short_is_finished(run: Run, url: str) -> None:
    execute(url, "SELECT create_distributed_table('users', 'id', colocate_with => 'none')")
    assert run("migrate", "distribute").stdout.splitlines() == DONE[1:]


def test_a_dry_run_prints_what_psql_can_run_and_touches_nothing(run: Run, url: str) -> None:
    done = run("migrate", "distribute", "--dry-run")
    assert done.exit_code == 0
    assert placed(url) == []
    execute(url, done.stdout)
    assert len(placed(url)) == 4


def test_without_the_extension_it_is_refused(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.apply(empty)
    monkeypatch.setenv("DATABASE_URL", empty)
    for arguments in ((), ("--dry-run",)):
        done = CliRunner().invoke(cli, ["migrate", "distribute", *arguments])
        assert done.exit_code == 1
        assert "does not have the extension citus, so nothing was distributed" in done.stderr


def test_before_every_migration_is_applied_it_is_refused(run: Run, url: str) -> None:
    migrate.rollback(url)
    done = run("migrate", "distribute")
    assert "0008.drop-email-key is not applied as its file is here: run `migrate apply` first" in done.stderr
    assert placed(url) == []


def test_what_is_distributed_in_another_way_is_not_touched(run: Run, url: str) -> None:
    execute(url, "ALTER TABLE users ADD CONSTRAINT extra UNIQUE (id, email)")
    execute(url, "SELECT create_distributed_table('tasks', 'user_id', colocate_with => 'none')")
    execute(url, "UPDATE pg_dist_partition SET partkey = 'id'")
    before = placed(url)
    done = run("migrate", "distribute")
    assert "tasks is not distributed by user_id: undo that with undistribute_table" in done.stderr
    assert placed(url) == before


def test_a_key_without_the_distribution_column_is_said_with_its_detail(run: Run, url: str) -> None:
    execute(url, "CREATE UNIQUE INDEX extra ON tasks (id)")
    done = run("migrate", "distribute")
    assert done.exit_code == 1
    assert (
        "Error: Not distributed tasks by user_id: cannot create constraint on public.tasks (SQLSTATE 42P16); DETAIL: "
        in (done.stderr)
    )
    execute(url, "DROP INDEX extra")
    assert run("migrate", "distribute").exit_code == 0


def test_check_says_what_is_missing_of_a_distributed_schema(run: Run, url: str) -> None:
    assert "warning  citus: it is installed and holds none of the tables" in run("check").stdout
    execute(url, "SELECT create_distributed_table('users', 'id', colocate_with => 'none')")
    done = run("check")
    assert "error    citus: it does not hold tasks, idempotency_keys, _yoyo_migration" in done.stdout
    assert "mend: tasks-service migrate distribute" in done.stdout
    run("migrate", "distribute")
    done = run("check")
    assert done.exit_code == 0
    assert "ok       citus: the tables are distributed by user and colocated" in done.stdout
    execute(url, "UPDATE pg_dist_placement SET groupid = 0")
    assert "warning  citus: every shard is on the coordinator" in run("check").stdout
    execute(url, "UPDATE pg_dist_partition SET colocationid = 7 WHERE logicalrelid = 'tasks'::regclass")
    assert "error    citus: tasks is not colocated with users" in run("check").stdout


def test_the_services_role_needs_more_where_the_tables_are_distributed(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(url, "CREATE ROLE citus_app LOGIN IN ROLE tasks_service")
    try:
        monkeypatch.setenv("DATABASE_URL", make_conninfo(url, user="citus_app"))
        monkeypatch.setenv("MIGRATION_DATABASE_URL", url)
        run("migrate", "distribute")
        assert "ok       role: citus_app has what the statements need and nothing else" in run("check").stdout
        execute(url, "REVOKE INSERT (version) ON tasks FROM tasks_service")
        done = run("check")
        assert "error    role: citus_app lacks INSERT of tasks.version" in done.stdout
        assert "mend: GRANT INSERT (version) ON tasks TO tasks_service" in done.stdout
    finally:
        execute(url, "DROP ROLE citus_app")
