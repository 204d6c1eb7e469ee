"""Nothing of anybody else's is taken for the service's own: `apply` refuses before anything is recorded, `rollback`
drops only what its migration made, and no table with rows is locked for long without being asked.
"""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from service.operations import migrate
from service.operations.migrate import MigrationError
from tests.support.databases import applied, relations, schema
from tests.support.migrations import write

pytestmark = pytest.mark.migrations

IDS = migrate.ids()


def run(url: str, text: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(text.encode())


# What another application has, and what is said of it.
THEIRS = [
    ("CREATE TABLE users (id serial PRIMARY KEY, email text); INSERT INTO users (email) VALUES ('a')", "table users"),
    ("CREATE TABLE users (id text PRIMARY KEY, name text NOT NULL)", "table users"),
    ("CREATE VIEW users AS SELECT 1 AS id", "table users, but schema public has a view"),
    ("CREATE MATERIALIZED VIEW tasks AS SELECT 1 AS id", "table tasks, but schema public has a materialized view"),
    ("CREATE TYPE users AS (id int)", "table users, but schema public has a type"),
    ("CREATE DOMAIN users AS text", "table users, but schema public has a type"),
    ("CREATE TABLE orders (id int); CREATE INDEX tasks_open_idx ON orders (id)", "an index of public.orders"),
    ("CREATE TABLE orders (id int CONSTRAINT users_pkey PRIMARY KEY)", "index users.users_pkey"),
    ("CREATE SEQUENCE tasks_id_seq", "sequence tasks_id_seq"),
    ("CREATE TABLE idempotency_keys (key text)", "table idempotency_keys"),
    ("CREATE SEQUENCE idempotency_keys_created_at_idx", "has a sequence"),
]


@pytest.mark.parametrize(("theirs", "said"), THEIRS, ids=[theirs[:60] for theirs, _ in THEIRS])
def test_apply_refuses_before_anything_is_recorded_what_is_in_its_way(
    make_empty: Callable[[], str], theirs: str, said: str
) -> None:
    url = make_empty()
    run(url, theirs)
    before = schema(url)
    with pytest.raises(MigrationError, match=r"that no migration made.*nothing was applied") as stopped:
        migrate.apply(url)
    assert said in str(stopped.value)
    assert schema(url) == before


def test_all_that_is_in_the_way_is_named(make_empty: Callable[[], str]) -> None:
    url = make_empty()
    run(url, "CREATE TABLE users (id int); CREATE TABLE tasks (id int)")
    with pytest.raises(
        MigrationError, match=r"table users, .* made; so it is with table tasks of 0002.create-tasks; nothing"
    ):
        migrate.apply(url)


# The same for each kind of object that a migration can make: one that exists already, and the statement.
_FUNCTION = "f() RETURNS int LANGUAGE sql AS"
_TRIGGER = "ON tasks FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
KINDS = [
    ("CREATE SEQUENCE s", "CREATE SEQUENCE s"),
    ("CREATE VIEW v AS SELECT 1", "CREATE VIEW v AS SELECT 2"),
    ("CREATE VIEW v AS SELECT 1 AS a", "CREATE OR REPLACE VIEW v AS SELECT 2 AS a"),
    (f"CREATE FUNCTION {_FUNCTION} 'SELECT 1'", f"CREATE OR REPLACE FUNCTION {_FUNCTION} 'SELECT 2'"),
    ("CREATE TYPE mood AS ENUM ('a')", "CREATE TYPE mood AS ENUM ('b')"),
    ("CREATE DOMAIN d AS text", "CREATE DOMAIN d AS int"),
    ("CREATE SCHEMA more", "CREATE SCHEMA IF NOT EXISTS more"),
    ("ALTER TABLE tasks ADD COLUMN due_at date", "ALTER TABLE tasks ADD COLUMN IF NOT EXISTS due_at timestamptz"),
    ("ALTER TABLE tasks ADD COLUMN due_at date", "ALTER TABLE tasks ADD due_at timestamptz"),
    ("ALTER TABLE tasks ADD CONSTRAINT c CHECK (true)", "ALTER TABLE tasks ADD CONSTRAINT c CHECK (id > 0) NOT VALID"),
    (f"CREATE TRIGGER t BEFORE UPDATE {_TRIGGER}", f"CREATE OR REPLACE TRIGGER t BEFORE DELETE {_TRIGGER}"),
    ("CREATE POLICY p ON tasks USING (true)", "CREATE POLICY p ON tasks USING (false)"),
    (
        "CREATE RULE r AS ON DELETE TO tasks DO ALSO NOTHING",
        "CREATE OR REPLACE RULE r AS ON DELETE TO tasks DO NOTHING",
    ),
    ("CREATE STATISTICS st ON id, version FROM tasks", "CREATE STATISTICS IF NOT EXISTS st ON id, title FROM tasks"),
    ('CREATE COLLATION co FROM "C"', 'CREATE COLLATION IF NOT EXISTS co FROM "POSIX"'),
    ('CREATE TABLE "Orders" (n int)', 'CREATE TABLE IF NOT EXISTS "Orders" (n int)'),
    ("CREATE TABLE orders (n int)", "CREATE TABLE IF NOT EXISTS public.Orders (n int)"),
    (
        "CREATE TABLE orders (n int); CREATE INDEX orders_idx ON orders (n)",
        "CREATE INDEX IF NOT EXISTS orders_idx ON tasks (id)",
    ),
    ("CREATE TABLE orders (n int)", "CREATE MATERIALIZED VIEW IF NOT EXISTS orders AS SELECT 1 AS n"),
]


@pytest.mark.parametrize(("theirs", "ours"), KINDS, ids=[ours[:60] for _, ours in KINDS])
def test_every_kind_of_object_is_looked_for(make_empty: Callable[[], str], own: Path, theirs: str, ours: str) -> None:
    url = make_empty()
    migrate.apply(url)
    run(url, theirs)
    write(own, "0003.fine", "CREATE TABLE fine (n int);")
    write(own, "0004.makes", f"{ours};")
    before = schema(url)
    with pytest.raises(MigrationError, match=r"0004\.makes would make .*nothing was applied"):
        migrate.apply(url)
    assert schema(url) == before


def test_what_the_statements_do_not_show_is_caught_while_the_migration_runs(own: Path, empty: str) -> None:
    """DDL in a DO block: PostgreSQL's own notice says that something was there."""
    migrate.apply(empty)
    run(empty, "CREATE TABLE orders (n int)")
    write(own, "0003.hidden", "DO $$ BEGIN CREATE TABLE IF NOT EXISTS orders (a int); END $$;")
    with pytest.raises(
        MigrationError, match=r'0003\.hidden was not applied: relation "orders" already exists, and it did'
    ):
        migrate.apply(empty)
    assert applied(empty) == IDS[:2]


def test_what_an_earlier_migration_made_is_not_foreign(own: Path, make_empty: Callable[[], str]) -> None:
    url = make_empty()
    write(own, "0003.function", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';", "DROP FUNCTION f();")
    migrate.apply(url)
    write(own, "0004.again", "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2';")
    write(own, "0005.rename", "-- Deploy: post.\nALTER TABLE tasks RENAME COLUMN title TO name;")
    write(own, "0006.reuse", "ALTER TABLE tasks ADD COLUMN title text;", "ALTER TABLE tasks DROP COLUMN title;")
    assert migrate.apply(url) == ["0004.again", "0005.rename", "0006.reuse"]


def test_an_extension_that_is_there_is_used(own: Path, empty: str) -> None:
    write(own, "0003.language", "CREATE EXTENSION IF NOT EXISTS plpgsql;")
    assert "0003.language" in migrate.apply(empty)


def test_apply_does_not_drop_what_no_migration_made(own: Path, make_empty: Callable[[], str]) -> None:
    url = make_empty()
    migrate.apply(url)
    run(url, "CREATE TABLE orders (n int); CREATE INDEX due_idx ON orders (n); CREATE SEQUENCE numbers")
    before = schema(url)
    for text, said in (
        ("DROP INDEX CONCURRENTLY IF EXISTS due_idx", "one of table orders that no migration made"),
        ("DROP TABLE IF EXISTS orders", "which was made by no migration"),
        ("DROP SEQUENCE numbers", "would drop sequence numbers, which no migration made"),
    ):
        write(own, "0003.drops", f"-- transactional: false\n{text};")
        with pytest.raises(MigrationError, match=said):
            migrate.apply(url)
        assert schema(url) == before


def test_rollback_does_not_drop_a_table_that_it_did_not_make(empty: str) -> None:
    """As an earlier version of this service recorded it: another application's table under our migration's name."""
    migrate.apply(empty, to="0002")
    run(empty, "ALTER TABLE tasks ADD COLUMN invoice_number text")
    with pytest.raises(
        MigrationError, match=r"would drop table tasks, which has columns that no migration made \(invoice_"
    ):
        migrate.rollback(empty, to="0")
    assert applied(empty) == IDS[:2]
    assert "tasks" in relations(empty)


def test_rollback_does_not_drop_an_index_of_another_table(empty: str) -> None:
    migrate.apply(empty, to="0003")
    run(empty, "DROP INDEX tasks_open_idx; CREATE TABLE orders (n int); CREATE INDEX tasks_open_idx ON orders (n)")
    with pytest.raises(MigrationError, match="would drop index tasks_open_idx, which is one of table orders"):
        migrate.rollback(empty)
    assert "tasks_open_idx" in relations(empty)


# Statements that lock or rewrite a table for as long as it is large.
LONG = [
    "ALTER TABLE tasks ALTER COLUMN version TYPE bigint",
    "ALTER TABLE tasks ALTER COLUMN description SET NOT NULL",
    "ALTER TABLE tasks ADD COLUMN at timestamptz DEFAULT clock_timestamp()",
    "ALTER TABLE tasks ADD CONSTRAINT c CHECK (version > 0)",
    "ALTER TABLE tasks ADD CONSTRAINT u UNIQUE (id)",
    "CREATE INDEX late ON tasks (created_at)",
    "UPDATE tasks SET title = title",
    "CREATE TABLE other (n int); ALTER TABLE public.tasks ALTER version SET DATA TYPE bigint",
]


@pytest.mark.parametrize("text", LONG)
def test_a_long_lock_on_a_table_with_rows_needs_consent(own: Path, make_empty: Callable[[], str], text: str) -> None:
    url = make_empty()
    migrate.apply(url)
    write(own, "0003.long", f"{text};")
    run(
        url,
        "INSERT INTO users (id) VALUES ('u'); INSERT INTO tasks (user_id, title, description) VALUES ('u', 't', 'd')",
    )
    before = schema(url)
    with pytest.raises(MigrationError, match=r"^0003\.long .*\(tasks has rows\); better: .*give --yes"):
        migrate.apply(url)
    assert schema(url) == before
    asked: list[str] = []
    assert migrate.apply(url, consent=lambda danger: bool(asked.append(danger)) or True) == ["0003.long"]
    assert len(asked) == 1


def test_an_empty_table_may_be_locked(own: Path, empty: str) -> None:
    write(own, "0003.long", "ALTER TABLE tasks ALTER COLUMN version TYPE bigint;")
    assert "0003.long" in migrate.apply(empty)
