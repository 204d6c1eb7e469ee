"""What the migrate commands promise: nothing changed by looking, each migration once, every failure a sentence."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict
from yoyo import get_backend, read_migrations

from service.operations import embedded, migrate
from service.operations.migrate import MigrationError, files
from service.operations.migrate.cli import migrate as command
from service.paths import root
from tests.support.databases import applied, relations, schema
from tests.support.migrations import fill_in, write

pytestmark = pytest.mark.migrations

IDS = migrate.ids()

Run = Callable[..., Result]


@pytest.fixture
def run(empty: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a migrate command on `empty`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", empty)
    return lambda *arguments: CliRunner().invoke(command, arguments)


def test_status_of_a_database_that_nobody_migrated_creates_nothing(run: Run, empty: str) -> None:
    before = schema(empty)
    done = run("status")
    assert done.exit_code == 0
    assert [line.split() for line in done.stdout.splitlines()] == [[name, "pending"] for name in IDS]
    assert relations(empty) == []
    assert schema(empty) == before


def test_status_says_when_each_was_applied(run: Run, empty: str) -> None:
    migrate.apply(empty, to="0002")
    states = msgspec.json.decode(run("status", "--json").stdout, type=list[migrate.State])
    assert [state.state for state in states] == ["applied", "applied", *["pending"] * (len(IDS) - 2)]
    assert [state.applied_at is not None for state in states] == [True, True, *[False] * (len(IDS) - 2)]
    assert run("status").stdout.splitlines()[0].endswith(f"applied  {states[0].applied_at:%Y-%m-%d %H:%M:%S} UTC")


def test_looking_at_an_embedded_database_that_is_not_there_makes_none(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("TASKS_DATA_DIR", str(tmp_path / "data"))
    for arguments in (["status"], ["apply", "--dry-run"]):
        assert run(*arguments).exit_code == 0
    assert not (tmp_path / "data").exists()


def test_a_dry_run_prints_what_psql_can_run_and_touches_nothing(
    run: Run, empty: str, make_empty: Callable[[], str]
) -> None:
    done = run("apply", "--dry-run", "--to", "0004")
    assert relations(empty) == []
    other = make_empty()
    psql = [embedded.bin_dir() / "psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", other]
    subprocess.run(psql, input=done.stdout, check=True, text=True, capture_output=True)
    assert "tasks_open_idx" in relations(other)

    migrate.apply(empty, to="0004")
    before = schema(empty)
    back = run("rollback", "--dry-run", "--to", "0")
    assert schema(empty) == before
    subprocess.run(psql, input=back.stdout, check=True, text=True, capture_output=True)
    assert relations(other) == []


def test_a_dry_run_shows_what_is_rolled_back_outside_a_transaction(run: Run, empty: str) -> None:
    migrate.apply(empty)
    assert run("rollback", "--dry-run").stdout.splitlines()[:2] == [
        "-- rollback 0008.drop-email-key, outside a transaction",
        "SET lock_timeout = '10min';",
    ]


def test_a_dry_run_as_json_holds_each_statement(run: Run) -> None:
    plan = msgspec.json.decode(run("apply", "--dry-run", "--json").stdout)
    assert [(step["id"], step["transactional"]) for step in plan] == [
        (migration.id, migration.transactional) for migration in migrate.read()
    ]
    assert plan[0]["statements"][0] == "SET lock_timeout = '500ms';"


def test_apply_applies_once(run: Run, empty: str) -> None:
    assert run("apply", "--to", "2").exit_code == 0
    assert applied(empty) == IDS[:2]
    done = run("apply")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [["applied", name] for name in IDS[2:]]
    before = schema(empty)
    assert run("apply").stdout == "nothing to apply\n"
    assert run("apply", "--json").stdout.split() == ["{", '"applied":', "[]", "}"]
    assert schema(empty) == before


def test_rollback_rolls_back_one_or_some_or_all(run: Run, empty: str) -> None:
    migrate.apply(empty)
    assert run("rollback", "--yes").exit_code == 0
    assert applied(empty) == IDS[:-1]
    assert run("rollback", "--count", "2", "--yes").exit_code == 0
    assert applied(empty) == IDS[:-3]
    assert run("rollback", "--to", "0001", "--yes").exit_code == 0
    assert applied(empty) == IDS[:1]
    assert msgspec.json.decode(run("rollback", "--to", "0", "--yes", "--json").stdout) == {"rolled_back": IDS[:1]}
    assert applied(empty) == []


def test_rollback_in_a_pipe_needs_yes(run: Run, empty: str) -> None:
    migrate.apply(empty)
    done = run("rollback")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "give --yes" in done.stderr
    assert applied(empty) == IDS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["apply", "--to", "9999"], "No migration is called 9999"),
        (["rollback", "--to", "nothing", "--yes"], "No migration is called nothing"),
        (["rollback", "--count", "9", "--yes"], "There are only 0 applied migrations to roll back"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(run: Run, arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 1
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["database", "Error"]
    assert said in done.stderr


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://somebody:hunter2@127.0.0.1:1/tasks",
        "postgresql//somebody:hunter2@127.0.0.1:1/tasks",
        "postgresql://somebody:hunter2@127.0.0.1:1/tasks?unknown=1",
        "host=127.0.0.1 port=1 password=hunter2 oops",
    ],
)
@pytest.mark.parametrize("arguments", [["status"], ["apply"], ["rollback", "--yes"], ["break-lock"]])
def test_a_password_is_never_shown(run: Run, monkeypatch: pytest.MonkeyPatch, url: str, arguments: list[str]) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    done = run(*arguments)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) <= 2  # that the settings cannot be used, and why
    assert "hunter2" not in done.output


def test_migrations_run_as_the_owner_where_one_is_set(run: Run, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("MIGRATION_DATABASE_URL", empty)
    assert run("apply").exit_code == 0
    assert applied(empty) == IDS


def test_yoyo_reads_the_same_history(empty: str) -> None:
    migrate.apply(empty, to="0003")
    options = conninfo_to_dict(empty)
    backend = get_backend(f"postgresql+psycopg://{options['user']}@/{options['dbname']}?host={options['host']}")
    with backend:
        known = read_migrations(str(root() / "migrations"))
        assert [m.id for m in backend.to_apply(known)] == IDS[3:]
        assert [m.id for m in backend.to_rollback(known)] == IDS[:3][::-1]
        backend.apply_migrations(backend.to_apply(known))
    assert [state.state for state in migrate.status(empty)] == ["applied"] * len(IDS)
    assert migrate.rollback(empty, to="0") == IDS[::-1]


def test_a_file_that_changed_after_it_was_applied_is_told(own: Path, empty: str) -> None:
    migrate.apply(empty)
    path = own / "0001.create-users.sql"
    path.write_text(path.read_text().replace("-- ", "--   ").replace("    id text", "  id  text"))
    assert [state.state for state in migrate.status(empty)] == ["applied", "applied"]
    path.write_text(path.read_text().replace("255", "256"))
    assert [state.state for state in migrate.status(empty)] == ["changed", "applied"]


def test_a_schema_ahead_of_the_code_is_told_and_not_rolled_back(own: Path, empty: str) -> None:
    write(own, "0003.newer", "SELECT 1;")
    migrate.apply(empty)
    for path in own.glob("0003*"):
        path.unlink()
    assert [state.state for state in migrate.status(empty)] == ["applied", "applied", "unknown"]
    assert migrate.apply(empty) == []
    with pytest.raises(MigrationError, match=r"0003\.newer is applied but has no file here"):
        migrate.rollback(empty)


def test_a_migration_that_fails_leaves_nothing_and_those_before_it_stay(own: Path, empty: str) -> None:
    write(own, "0003.broken", "CREATE TABLE half (n int); SELECT 1 / 0;")
    with pytest.raises(
        MigrationError, match=r"^0003\.broken failed: division by zero \(SQLSTATE 22012\); at line 2 of "
    ):
        migrate.apply(empty)
    assert applied(empty) == IDS[:2]
    assert "half" not in relations(empty)
    write(own, "0003.broken", "CREATE TABLE whole (n int);")
    assert migrate.apply(empty) == ["0003.broken"]


def test_a_setting_in_one_migration_does_not_reach_the_next(own: Path, empty: str) -> None:
    write(own, "0003.sets", "SET search_path = pg_catalog; SET statement_timeout = '1s'; SELECT 1;")
    write(own, "0004.sees", "-- transactional: false\nSELECT 1 / (current_setting('statement_timeout') = '0')::int;")
    write(own, "0005.lives-in-public", "CREATE TABLE here (n int);")
    assert migrate.apply(empty) == [*IDS[:2], "0003.sets", "0004.sees", "0005.lives-in-public"]
    assert "here" in relations(empty)


def test_the_roles_own_limits_do_not_stop_a_migration(own: Path, empty: str) -> None:
    with psycopg.connect(empty, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {connection.info.dbname} SET statement_timeout = '50ms'".encode())
    write(own, "0003.slow", "SELECT pg_sleep(0.2);")
    assert "0003.slow" in migrate.apply(empty)


def test_a_lock_that_others_hold_is_tried_again(own: Path, empty: str) -> None:
    migrate.apply(empty)
    write(own, "0003.alters", "SET lock_timeout = '50ms'; ALTER TABLE tasks ADD COLUMN extra text;")
    with psycopg.connect(empty) as reader:
        reader.execute("SELECT FROM tasks")
        with pytest.raises(MigrationError, match=r"0003\.alters gave up waiting for a lock that others hold"):
            migrate.apply(empty, wait_s=0)
        said: list[str] = []

        def release(line: str) -> None:
            said.append(line)
            reader.rollback()

        assert migrate.apply(empty, say=release) == ["0003.alters"]
        assert len(said) == 1
        assert re.fullmatch(
            r"0003\.alters waits for a lock that others hold, session \d+ \(tasks; idle in transaction, in a "
            r"transaction for \d s\): SELECT FROM tasks; trying again",
            said[0],
        )


def test_new_writes_files_that_can_be_applied(own: Path, empty: str) -> None:
    up, down = migrate.new("Add a  due-date!")
    assert (up.name, down.name) == ("0003.add-a-due-date.sql", "0003.add-a-due-date.rollback.sql")
    assert "-- depends: 0002.create-tasks\n" in up.read_text()
    with pytest.raises(MigrationError, match=r"0003\.add-a-due-date is not filled in"):
        migrate.apply(empty)
    with pytest.raises(MigrationError, match=r"0003\.add-a-due-date is not filled in yet"):
        migrate.new("another")
    fill_in(up, "ALTER TABLE tasks ADD COLUMN due_at timestamptz;")
    fill_in(down, "ALTER TABLE tasks DROP COLUMN due_at;")
    assert migrate.apply(empty) == [*IDS[:2], "0003.add-a-due-date"]
    assert migrate.rollback(empty) == ["0003.add-a-due-date"]
    assert migrate.new("another")[0].name == "0004.another.sql"
    with pytest.raises(MigrationError, match="has no letter or digit"):
        migrate.new("…")


def test_a_migration_that_depends_on_a_later_one_is_refused(own: Path) -> None:
    write(own, "0000.first", "-- depends: 0001.create-users\nSELECT 1;")
    with pytest.raises(MigrationError, match=r"0000\.first\.sql depends on 0001\.create-users, which does not come"):
        migrate.read()


def test_help_is_there_at_every_level(run: Run) -> None:
    for arguments in ([], ["status"], ["apply"], ["rollback"], ["new"], ["lint"], ["break-lock"]):
        done = run(*arguments, "--help")
        assert done.exit_code == 0
        assert done.stdout.startswith("Usage:")


def test_nothing_of_it_is_loaded_to_serve() -> None:
    loaded = "import sys, service.app; sys.exit('yoyo' in sys.modules or 'sqlparse' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], check=False).returncode == 0


def test_migrations_of_another_folder_are_used(
    run: Run, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an installed wheel, whose own folder nobody edits."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(root() / "migrations", folder)
    write(folder, "0009.theirs", "CREATE TABLE theirs (n int);", "DROP TABLE theirs;")
    monkeypatch.setattr(files, "_folder", None)
    monkeypatch.setenv("MIGRATIONS_DIR", str(folder))
    assert run("apply").exit_code == 0
    assert applied(empty) == [*IDS, "0009.theirs"]
    monkeypatch.setenv("MIGRATIONS_DIR", str(tmp_path / "nowhere"))
    assert run("status").stderr == f"Error: There are no migrations in {tmp_path / 'nowhere'}\n"


def test_what_an_earlier_form_of_a_file_made_counts_as_applied(migrated: str) -> None:
    """`-- replaces:` names its checksum: an installation of before the files named pg_catalog."""
    earlier = {
        "0001.create-users": "90b72f22e3aece492b63a12a07463cefcbedbbffdf01010e4f48791c565f4aa6",
        "0003.index-open-tasks": "d5b093ae02f3db7aa0167a05e477d3f6bb5d2a8ca9fef53b411dceecf4e1a658",
        "0005.create-service-role": "fc581479f1b13f89a99a01c39301f39d82ea03a2ba2f3e3a1f3affccf0deed7e",
    }
    with psycopg.connect(migrated) as connection:
        for name, checksum in earlier.items():
            changed = "UPDATE _yoyo_migration SET checksum = %s WHERE migration_id = %s"
            assert connection.execute(changed, (checksum, name)).rowcount == 1
    assert {state.state for state in migrate.status(migrated)} == {"applied"}
