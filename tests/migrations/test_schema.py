"""The schema: what the migrations make is what schema.txt says, and what the contract's limits are in the database."""

import sys
from collections.abc import Callable

import psycopg
import pytest

from service.operations import catalog, migrate
from service.operations.migrate import files, session

pytestmark = pytest.mark.migrations


def test_the_snapshot_is_what_the_migrations_make(database_url: str) -> None:
    with session.connect(database_url) as connected:
        listed = (files.folder() / files.SNAPSHOT).read_text()
        assert catalog.listing(connected) == listed, "run `tasks-service migrate lint`"


def drift(url: str, change: str = "") -> list[catalog.Difference]:
    """What is said of the schema after a change that is undone."""
    snapshot = catalog.snapshot()
    assert snapshot
    with session.connect(url) as connected, connected.connection.transaction(force_rollback=True):
        connected.connection.execute("SET LOCAL search_path = public")
        connected.connection.execute(change.encode())
        connected.connection.execute("SET LOCAL search_path = pg_catalog")
        return catalog.drift(catalog.facts(connected), snapshot.facts, migrate.read())


def test_a_schema_does_not_differ_from_itself(database_url: str) -> None:
    assert drift(database_url) == []


@pytest.fixture(scope="module")
def database_url(clone: Callable[[], str]) -> str:
    """A migrated database, in which no test leaves anything."""
    return clone()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE tasks DROP COLUMN description", ["missing: column tasks.description text"]),
        ("ALTER TABLE tasks ADD COLUMN extra text", ["not made by a migration: column tasks.extra text"]),
        (
            "ALTER TABLE tasks ALTER COLUMN version TYPE bigint",
            ["column tasks.version is `bigint not null default 1`, should be `integer not null default 1`"],
        ),
        (
            "ALTER TABLE tasks ALTER COLUMN completed DROP DEFAULT",
            ["column tasks.completed is `boolean not null`, should be `boolean not null default false`"],
        ),
        ("ALTER TABLE users ALTER COLUMN created_at DROP NOT NULL", ["column users.created_at is"]),
        ("DROP INDEX tasks_open_idx", ["missing: index tasks.tasks_open_idx using btree (user_id, id)"]),
        (
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'tasks_open_idx'::regclass",
            ["invalid`, should be"],
        ),
        ("CREATE INDEX extra ON tasks (title)", ["not made by a migration: index tasks.extra using btree (title)"]),
        ("ALTER TABLE tasks DROP CONSTRAINT tasks_title_length", ["missing: constraint tasks.tasks_title_length"]),
        (
            "ALTER TABLE tasks DROP CONSTRAINT tasks_version_positive; "
            "ALTER TABLE tasks ADD CONSTRAINT tasks_version_positive CHECK (version >= 0)",
            ["constraint tasks.tasks_version_positive is `CHECK ((version >= 0))`, should be `CHECK ((version >= 1))`"],
        ),
        ("DROP TABLE idempotency_keys", ["missing: table idempotency_keys"]),
        ("ALTER TABLE tasks ENABLE ROW LEVEL SECURITY", ["table tasks is `with row security`, should be ``"]),
        (
            "CREATE TRIGGER extra BEFORE UPDATE ON tasks FOR EACH ROW "
            "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            ["not made by a migration: trigger tasks.extra"],
        ),
        ("CREATE TABLE elsewhere (n int)", []),
    ],
)
def test_each_difference_is_named(database_url: str, change: str, said: list[str]) -> None:
    found = drift(database_url, change)
    assert bool(found) == bool(said)
    for part in said:
        assert any(part in difference.what for difference in found), found


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE tasks DROP COLUMN description",
        "ALTER TABLE tasks ALTER COLUMN version TYPE bigint",
        "ALTER TABLE tasks ALTER COLUMN completed DROP DEFAULT",
        "ALTER TABLE users ALTER COLUMN created_at DROP NOT NULL",
        "ALTER TABLE users ALTER COLUMN created_at SET DEFAULT '-infinity'",
        "DROP INDEX tasks_open_idx",
        "DROP INDEX tasks_open_idx; CREATE INDEX tasks_open_idx ON tasks (id)",
        "ALTER TABLE tasks DROP CONSTRAINT tasks_title_length",
        "ALTER TABLE tasks DROP CONSTRAINT tasks_user_id_fkey",
        "ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey",
        "ALTER TABLE tasks DROP CONSTRAINT tasks_version_positive; "
        "ALTER TABLE tasks ADD CONSTRAINT tasks_version_positive CHECK (version >= 0)",
        "ALTER TABLE tasks ENABLE ROW LEVEL SECURITY",
    ],
)
def test_the_statement_that_is_printed_mends_it(database_url: str, change: str) -> None:
    mends = [difference.mend for difference in drift(database_url, change) if difference.mend]
    assert mends
    # In the transaction that the change is undone with, so not concurrently; a key makes its index, too.
    mend = "; ".join(text.replace("CONCURRENTLY ", "") for text in mends if "_pkey ON" not in text)
    assert drift(database_url, f"{change}; {mend}") == []


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ("CREATE INDEX extra ON tasks (title)", "warning"),
        ("CREATE UNIQUE INDEX extra ON tasks (id)", "error"),
        ("ALTER TABLE tasks ADD COLUMN extra text", "warning"),
        ("ALTER TABLE tasks ADD COLUMN extra text NOT NULL DEFAULT ''", "warning"),
        ("ALTER TABLE tasks ADD COLUMN extra text NOT NULL", "error"),
        ("ALTER TABLE tasks ADD CONSTRAINT extra CHECK (title <> 'no')", "error"),
    ],
)
def test_what_somebody_added_is_an_error_only_where_it_can_reject_rows(
    database_url: str, change: str, level: str
) -> None:
    assert [difference.level for difference in drift(database_url, change)] == [level]


def test_the_title_is_trimmed_as_python_trims(database_url: str) -> None:
    """Each character at either end: refused where str.strip would take it away, and only there."""
    characters = [chr(n) for n in range(1, 0x20000) if not 0xD800 <= n < 0xE000]
    wanted = {character for character in characters if not character.strip()}
    assert len(wanted) > 20
    assert not any(chr(n).isspace() for n in range(0x20000, sys.maxunicode + 1))
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conname = 'tasks_title_trimmed'"
        ).fetchone()
        assert row
        for form in ("c || 'title'", "'title' || c"):
            refused = connection.execute(
                f"SELECT c FROM unnest(%s::text []) AS given (c), LATERAL (SELECT {form} AS title) AS row "
                f"WHERE NOT {row[0]}".replace("%", "%%")
                .replace("%%s::", "%s::")
                .encode(),
                (characters,),
            ).fetchall()
            assert {character for (character,) in refused} == wanted


def test_lengths_count_code_points(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO users (id) VALUES ('u')")
        insert = "INSERT INTO tasks (user_id, title, description) VALUES ('u', %s, %s)"
        connection.execute(insert, ("\U0001f600" * 255, "\U0001f600" * 5000))
        for title, description in (("\U0001f600" * 256, None), ("t", "\U0001f600" * 5001), ("", None)):
            with pytest.raises(psycopg.errors.CheckViolation), connection.transaction():
                connection.execute(insert, (title, description))
        connection.rollback()


@pytest.mark.parametrize("time", ["infinity", "-infinity", "20000-01-01", "10000-01-01", "0001-01-01 BC"])
def test_a_time_that_the_api_cannot_show_is_rejected(database_url: str, time: str) -> None:
    with psycopg.connect(database_url) as connection:
        for statement in (
            "INSERT INTO users (id, created_at) VALUES ('v', %s)",
            "INSERT INTO tasks (user_id, title, created_at) VALUES ('u', 't', %s)",
            "INSERT INTO tasks (user_id, title, updated_at) VALUES ('u', 't', %s)",
            "INSERT INTO idempotency_keys (user_id, operation, key, fingerprint, task_ids, created_at) "
            "VALUES ('u', 'create', 'k', '', '{1}', %s)",
        ):
            with pytest.raises(psycopg.errors.CheckViolation, match="_times_shown"), connection.transaction():
                connection.execute(statement, (time,))
        connection.rollback()


def test_the_first_and_the_last_time_that_the_api_can_show_are_accepted(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO users (id, created_at) VALUES ('v', '0001-01-01 00:00Z'), ('w', '9999-12-31Z')")
        connection.rollback()
