"""Every migration keeps the rules for a live database, and each rule catches what breaks it."""

from pathlib import Path

import pytest

from service.operations.migrate import lint

pytestmark = pytest.mark.migrations

GOOD = """\
-- Due dates: when a task should be done, for the list of late tasks.
-- Deploy: pre.
-- depends: 0001.first

SET lock_timeout = '500ms';

ALTER TABLE tasks ADD COLUMN due_at timestamptz;
"""
GOOD_ROLLBACK = """\
-- Rolls back 0002: every due date is lost.

SET lock_timeout = '500ms';

ALTER TABLE tasks DROP COLUMN due_at;
"""
INDEX = """\
-- The list of late tasks (sql/tasks/list_late.sql) reads this and not every task of the user.
-- Deploy: pre.
-- transactional: false
-- depends: 0001.first

SET lock_timeout = '10min';

CREATE INDEX CONCURRENTLY tasks_due_idx ON tasks (user_id, due_at);
"""
INDEX_ROLLBACK = """\
-- Rolls back 0002: the list of late tasks stays right, only slower.

SET lock_timeout = '10min';

DROP INDEX CONCURRENTLY tasks_due_idx;
"""
ADD = "ALTER TABLE tasks ADD COLUMN due_at timestamptz;"

# A rule broken: the good file, what is changed in it, and what is then said.
BROKEN = [
    (GOOD, "SET lock_timeout = '500ms';", "", "lock-timeout: does not begin with SET lock_timeout"),
    (GOOD, "500ms", "5s", "lock-timeout: has a lock_timeout that is not between"),
    (GOOD, "500ms", "0", "lock-timeout: has a lock_timeout that is not between"),
    (GOOD, "-- Deploy: pre.\n", "", "deploy: does not say `-- Deploy: pre.`"),
    (GOOD, ": when a task should be done, for the list of late tasks", "", "header: does not say"),
    (GOOD, "depends: 0001.first", "depends:", "depends: depends on nothing"),
    (GOOD, ADD, "", "files: is not filled in"),
    (INDEX, "-- transactional: false\n", "", "ban-concurrent-index-creation-in-transaction"),
    (INDEX, "CREATE INDEX", "ALTER TABLE tasks ADD COLUMN a text;\n\nCREATE INDEX", "alone: does more outside a"),
    (INDEX, "CONCURRENTLY tasks_due_idx ON", "tasks_due_idx ON", "alone: does more outside a transaction"),
    (INDEX, "CONCURRENTLY tasks_due_idx ON", "CONCURRENTLY ON", "unnamed: has an index without a name"),
]
# A statement in place of the good one, and what is then said.
BAD_STATEMENTS = [
    ("ALTER TABLE tasks DROP COLUMN description;", "deploy: drops or renames"),
    ("ALTER TABLE tasks RENAME COLUMN title TO name;", "deploy: drops or renames"),
    ("ALTER TABLE tasks RENAME title TO name;", "deploy: drops or renames"),
    ("DROP TABLE tasks;", "deploy: drops or renames"),
    ("ALTER TABLE tasks RENAME COLUMN title TO name;", "renaming-column"),
    ("ALTER TABLE tasks ADD COLUMN due_at timestamptz NOT NULL;", "long-lock: adds a column that is NOT NULL"),
    ("ALTER TABLE tasks ALTER COLUMN version TYPE bigint;", "long-lock: changes a column's type"),
    ("ALTER TABLE tasks ALTER version SET DATA TYPE bigint;", "long-lock: changes a column's type"),
    ("ALTER TABLE tasks ADD COLUMN at timestamptz DEFAULT clock_timestamp();", "long-lock: adds a column with"),
    ("ALTER TABLE tasks ADD COLUMN n bigserial;", "long-lock: adds a column with a computed value"),
    ("ALTER TABLE tasks ADD n bigint GENERATED ALWAYS AS IDENTITY;", "long-lock: adds a column with"),
    ("ALTER TABLE tasks ADD n int GENERATED ALWAYS AS (version) STORED;", "long-lock: adds a column with"),
    ("ALTER TABLE tasks ALTER COLUMN title SET NOT NULL;", "long-lock: sets NOT NULL"),
    ("ALTER TABLE tasks ADD CONSTRAINT c CHECK (version > 0);", "long-lock: adds a constraint"),
    (
        "ALTER TABLE tasks ADD CONSTRAINT c CHECK (version > 0) NOT VALID; ALTER TABLE tasks VALIDATE CONSTRAINT c;",
        "constraint-missing-not-valid",
    ),
    ("ALTER TABLE tasks ADD CONSTRAINT f FOREIGN KEY (user_id) REFERENCES users (id);", "long-lock: adds a constraint"),
    ("ALTER TABLE tasks ADD CONSTRAINT u UNIQUE (id);", "long-lock: adds a key"),
    ("CREATE INDEX tasks_due_idx ON tasks (due_at);", "long-lock: builds an index"),
    ("UPDATE tasks SET title = 'a';", "long-lock: UPDATEs every row"),
    ("TRUNCATE tasks;", "long-lock: removes every row"),
    ("LOCK TABLE tasks;", "long-lock: locks the table"),
    ("CREATE INDEX CONCURRENTLY tasks_due_idx ON tasks (due_at);", "ban-concurrent-index-creation-in-transaction"),
    ("CREATE VIEW late AS SELECT * FROM tasks;", "star: has a SELECT *"),
    ("CREATE VIEW late AS SELECT id FROM (SELECT tasks.* FROM tasks) AS t;", "star: has a SELECT *"),
    ("CREATE TABLE tags (name text PRIMARY KEY);", "unnamed: has a constraint without a name"),
    ("CREATE TABLE tags (name text CHECK (name <> ''));", "unnamed: has a constraint without a name"),
    ("CREATE TABLE tags (name text REFERENCES users);", "unnamed: has a constraint without a name"),
    ("CREATE TABLE tags (name text, UNIQUE (name));", "unnamed: has a constraint without a name"),
    ("CREATE TABLE IF NOT EXISTS tags (name text);", "if-exists: IF [NOT] EXISTS"),
    ("CREATE SEQUENCE IF NOT EXISTS numbers;", "if-exists: IF [NOT] EXISTS"),
    ("CREATE SCHEMA IF NOT EXISTS more;", "if-exists: IF [NOT] EXISTS"),
    ("ALTER TABLE tasks ADD COLUMN IF NOT EXISTS due_at timestamptz;", "if-exists: IF [NOT] EXISTS"),
    ("DROP INDEX IF EXISTS tasks_open_idx;", "if-exists: IF [NOT] EXISTS"),
    ("ALTER TABEL tasks;", "syntax-error"),
]
BROKEN += [(GOOD, ADD, statement, said) for statement, said in BAD_STATEMENTS]


def said_of(folder: Path) -> list[str]:
    return [f"{found.file}: {found.rule}: {found.what}" for found in lint.findings(folder)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good migrations."""
    for number, name, before in (("0001", "first", ""), ("0002", "second", " 0001.first")):
        up, down = GOOD.replace(" 0001.first", before), GOOD_ROLLBACK.replace("0002", number)
        (tmp_path / f"{number}.{name}.sql").write_text(up)
        (tmp_path / f"{number}.{name}.rollback.sql").write_text(down)
    return tmp_path


def test_what_is_not_filled_in_is_named_with_its_line(folder: Path) -> None:
    path = folder / "0002.second.sql"
    path.write_text(GOOD.replace(ADD, ""))
    assert "0002.second.sql:7: files: is not filled in" in str(lint.findings(folder)[0])
    path.write_text(GOOD.replace("when a task should be done", "what it does and why"))
    assert "0002.second.sql:1: files: is not filled in" in str(lint.findings(folder)[0])


def test_every_migration_keeps_the_rules() -> None:
    assert lint.findings() == []


@pytest.mark.parametrize(("text", "back"), [(GOOD, GOOD_ROLLBACK), (INDEX, INDEX_ROLLBACK)])
def test_a_good_migration_is_not_complained_about(folder: Path, text: str, back: str) -> None:
    (folder / "0002.second.sql").write_text(text)
    (folder / "0002.second.rollback.sql").write_text(back)
    assert said_of(folder) == []


@pytest.mark.parametrize(
    ("text", "old", "new", "said"), BROKEN, ids=[new[:40] or old[:40] for _, old, new, _ in BROKEN]
)
def test_each_rule_catches_what_breaks_it(folder: Path, text: str, old: str, new: str, said: str) -> None:
    assert old in text
    (folder / "0002.second.sql").write_text(text.replace(old, new))
    found = said_of(folder)
    assert any(line.startswith(f"0002.second.sql: {said}") for line in found), found


def test_a_migration_needs_its_rollback_and_a_rollback_its_migration(folder: Path) -> None:
    (folder / "0002.second.rollback.sql").rename(folder / "0003.third.rollback.sql")
    assert said_of(folder) == [
        "0003.third.rollback.sql: rollback-alone: rolls back a migration that is not there",
        "0002.second.sql: files: has no rollback",
    ]


def test_a_rollback_says_what_is_lost(folder: Path) -> None:
    (folder / "0002.second.rollback.sql").write_text(
        GOOD_ROLLBACK.replace("Rolls back 0002: every due date is", "With this, every due date that anybody has set is")
    )
    assert said_of(folder) == [
        "0002.second.rollback.sql: header: does not begin with `Rolls back 0002: ` and the data lost"
    ]


@pytest.mark.parametrize("name", ["0002.second_one.sql", "2.second.sql", "0003.second.sql"])
def test_a_number_is_the_next_one_and_a_name_is_plain(folder: Path, name: str) -> None:
    for path in folder.glob("0002*"):
        path.rename(folder / name.replace(".sql", "".join(path.suffixes[1:])))
    assert any(line.startswith(name) for line in said_of(folder))


def test_the_files_have_to_fit_each_other(folder: Path) -> None:
    second = (folder / "0002.second.sql").read_text()
    for name in ("0002.another", "0003.third"):
        (folder / f"{name}.sql").write_text(second.replace("due_at", "other"))
        (folder / f"{name}.rollback.sql").write_text(GOOD_ROLLBACK.replace("0002", name[:4]))
    said = said_of(folder)
    assert "0002.second.sql: files: has the same number as 0002.another" in said
    assert "0003.third.sql: files: leaves 3 heads, which nothing depends on" in said


def test_each_finding_has_its_place_the_reason_and_the_better_form(folder: Path) -> None:
    text = GOOD.replace(ADD, "ALTER TABLE tasks ALTER COLUMN version TYPE bigint;")
    (folder / "0002.second.sql").write_text(text)
    (finding,) = lint.findings(folder)
    assert str(finding) == (
        "0002.second.sql:7: long-lock: changes a column's type: the whole table is rewritten while nobody can read or "
        "write it: ALTER TABLE tasks ALTER COLUMN version TYPE bigint;\n"
        "  why: requests on the table wait or fail for as long\n"
        "  better: add a column of the new type, fill it in batches, and use it instead"
    )
