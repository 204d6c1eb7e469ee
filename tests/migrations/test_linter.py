"""Every migration keeps the rules for a live database, and each rule catches what breaks it."""

from pathlib import Path

import pytest

from service.paths import root
from tests.migrations import linter

GOOD = """\
-- Due dates: when a task should be done, for the list of what is late.
-- Deploy: pre.
-- depends: 0001.first

SET lock_timeout = '500ms';

ALTER TABLE tasks ADD COLUMN IF NOT EXISTS due_at timestamptz;
"""
GOOD_ROLLBACK = """\
-- Rolls back 0002: every due date is lost.

SET lock_timeout = '500ms';

ALTER TABLE tasks DROP COLUMN IF EXISTS due_at;
"""
INDEX = """\
-- The list of late tasks (sql/tasks/list_late.sql) reads this and not every task of the user.
-- Deploy: pre.
-- transactional: false
-- depends: 0001.first

SET lock_timeout = '10min';

DROP INDEX CONCURRENTLY IF EXISTS tasks_due_idx;

-- squawk-ignore prefer-robust-stmts
CREATE INDEX CONCURRENTLY tasks_due_idx ON tasks (user_id, due_at);
"""
INDEX_ROLLBACK = """\
-- Rolls back 0002: the list of late tasks stays right, only slower.

SET lock_timeout = '10min';

DROP INDEX CONCURRENTLY IF EXISTS tasks_due_idx;
"""
ADD = "ALTER TABLE tasks ADD COLUMN IF NOT EXISTS due_at timestamptz;"

# A rule broken: the good file, what is changed in it, and what is then said.
BROKEN = [
    (GOOD, "SET lock_timeout = '500ms';", "", "does not begin with SET lock_timeout"),
    (GOOD, "500ms", "5s", "has a lock_timeout that is not between"),
    (GOOD, "500ms", "0", "has a lock_timeout that is not between"),
    (GOOD, "-- Deploy: pre.\n", "", "does not say `-- Deploy: pre.`"),
    (GOOD, ": when a task should be done, for the list of what is late", "", "what it does and why"),
    (GOOD, "depends: 0001.first", "depends:", "should say `-- depends: 0001.first`"),
    (GOOD, ADD, "ALTER TABLE tasks DROP COLUMN description;", "Deploy: post."),
    (GOOD, ADD, "ALTER TABLE tasks RENAME COLUMN title TO name;", "Deploy: post."),
    (GOOD, ADD, "DROP TABLE IF EXISTS tasks;", "Deploy: post."),
    (GOOD, ADD, "ALTER TABLE tasks RENAME COLUMN title TO name;", "squawk: warning: renaming-column"),
    (GOOD, ADD, "ALTER TABLE tasks ADD COLUMN due_at timestamptz NOT NULL;", "squawk: warning: adding-required-field"),
    (GOOD, ADD, "ALTER TABLE tasks ALTER COLUMN version TYPE bigint;", "squawk: warning: changing-column-type"),
    (GOOD, ADD, "ALTER TABLE tasks ADD COLUMN at timestamptz DEFAULT clock_timestamp();", "adding-field-with-default"),
    (GOOD, ADD, "ALTER TABLE tasks ALTER COLUMN title SET NOT NULL;", "squawk: warning: adding-not-nullable-field"),
    (
        GOOD,
        ADD,
        "ALTER TABLE tasks ADD CONSTRAINT c CHECK (version > 0);",
        "squawk: warning: constraint-missing-not-valid",
    ),
    (
        GOOD,
        ADD,
        "ALTER TABLE tasks ADD CONSTRAINT c CHECK (version > 0) NOT VALID; ALTER TABLE tasks VALIDATE CONSTRAINT c;",
        "squawk: warning: constraint-missing-not-valid",
    ),
    (
        GOOD,
        ADD,
        "ALTER TABLE tasks ADD CONSTRAINT f FOREIGN KEY (user_id) REFERENCES users (id);",
        "squawk: warning: adding-foreign-key-constraint",
    ),
    (GOOD, ADD, "CREATE INDEX tasks_due_idx ON tasks (due_at);", "squawk: warning: require-concurrent-index-creation"),
    (
        GOOD,
        ADD,
        "CREATE INDEX CONCURRENTLY tasks_due_idx ON tasks (due_at);",
        "squawk: warning: ban-concurrent-index-creation-in-transaction",
    ),
    (GOOD, ADD, "CREATE VIEW late AS SELECT * FROM tasks;", "has a SELECT *"),
    (GOOD, ADD, "CREATE VIEW late AS SELECT id FROM (SELECT tasks.* FROM tasks) AS t;", "has a SELECT *"),
    (GOOD, ADD, "CREATE TABLE IF NOT EXISTS tags (name text PRIMARY KEY);", "has a constraint without a name"),
    (GOOD, ADD, "CREATE TABLE IF NOT EXISTS tags (name text CHECK (name <> ''));", "has a constraint without a name"),
    (GOOD, ADD, "ALTER TABEL tasks;", "does not parse"),
    (INDEX, "-- transactional: false\n", "", "ban-concurrent-index-creation-in-transaction"),
    (INDEX, "CREATE INDEX", "ALTER TABLE tasks ADD COLUMN a text;\n\nCREATE INDEX", "does more outside a transaction"),
    (INDEX, "DROP INDEX CONCURRENTLY IF EXISTS tasks_due_idx;", "", "does not drop a half-built tasks_due_idx first"),
    (INDEX, "CONCURRENTLY tasks_due_idx ON", "tasks_due_idx ON", "does more outside a transaction"),
    (INDEX, "CONCURRENTLY tasks_due_idx ON", "CONCURRENTLY ON", "has an index without a name"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good migrations."""
    for number, name, before in (("0001", "first", ""), ("0002", "second", " 0001.first")):
        up, down = GOOD.replace(" 0001.first", before), GOOD_ROLLBACK.replace("0002", number)
        (tmp_path / f"{number}.{name}.sql").write_text(up)
        (tmp_path / f"{number}.{name}.rollback.sql").write_text(down)
    return tmp_path


def test_every_migration_keeps_the_rules() -> None:
    assert linter.findings(root() / "migrations") == []


@pytest.mark.parametrize(("text", "back"), [(GOOD, GOOD_ROLLBACK), (INDEX, INDEX_ROLLBACK)])
def test_a_good_migration_is_not_complained_about(folder: Path, text: str, back: str) -> None:
    (folder / "0002.second.sql").write_text(text)
    (folder / "0002.second.rollback.sql").write_text(back)
    assert linter.findings(folder) == []


@pytest.mark.parametrize(
    ("text", "old", "new", "said"), BROKEN, ids=[new[:40] or old[:40] for _, old, new, _ in BROKEN]
)
def test_each_rule_catches_what_breaks_it(folder: Path, text: str, old: str, new: str, said: str) -> None:
    assert old in text
    (folder / "0002.second.sql").write_text(text.replace(old, new))
    found = linter.findings(folder)
    assert any(line.startswith("0002.second.sql: ") and said in line for line in found), found


def test_a_migration_needs_its_rollback_and_a_rollback_its_migration(folder: Path) -> None:
    (folder / "0002.second.rollback.sql").rename(folder / "0003.third.rollback.sql")
    assert linter.findings(folder) == [
        "0002.second.sql: has no rollback",
        "0003.third.rollback.sql: takes back a migration that is not there",
    ]


def test_a_rollback_says_what_is_lost(folder: Path) -> None:
    (folder / "0002.second.rollback.sql").write_text(
        GOOD_ROLLBACK.replace("Rolls back 0002: every due date is", "With this, every due date that anybody has set is")
    )
    assert linter.findings(folder) == [
        "0002.second.rollback.sql: does not begin with `Rolls back 0002` and what is lost"
    ]


@pytest.mark.parametrize("name", ["0002.second_one.sql", "2.second.sql", "0003.second.sql"])
def test_a_number_is_the_next_one_and_a_name_is_plain(folder: Path, name: str) -> None:
    for path in folder.glob("0002*"):
        path.rename(folder / name.replace(".sql", "".join(path.suffixes[1:])))
    assert any(line.startswith(name) for line in linter.findings(folder))
