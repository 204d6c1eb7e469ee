"""Statements are read once at import, and what is wrong with a file stops the service from being imported at all."""

import runpy
import shutil
from pathlib import Path

import pytest

from service import paths
from service.database import Statement, StatementError, read
from service.tasks import queries

GOOD = "-- Promises something. Served by tasks_pkey.\nSELECT %(a)s, %(b)s -- and %(a)s\nWHERE 'a;b' = %(a)s;\n"


def statement(text: str, **parameters: type) -> Statement[object]:
    return Statement("some", text, parameters or {"a": str, "b": int}, lambda *columns: columns)


def test_placeholders_become_numbers_in_the_order_of_the_parameters() -> None:
    made = statement(GOOD, b=int, a=str)
    assert made.sql == "SELECT $2, $1 \nWHERE 'a;b' = $2"
    assert made.parameters == ("b", "a")
    assert made.encode((5, "x")) == [b"5", b"x"]
    assert made.encode((None, "")) == [None, b""]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("SELECT %(a)s, %(b)s", "must begin with a comment"),
        ("", "must begin with a comment"),
        ("-- Promises nothing.", "exactly one statement"),
        (GOOD + "SELECT 1", "exactly one statement"),
        (GOOD + ";DELETE FROM tasks;", "exactly one statement"),
        ("-- One.\nSELECT %(a)s, %(b)s, %(c)s", "unknown placeholder c"),
        ("-- One.\nSELECT %(a)s", "unused parameter b"),
        ("-- One: %(b)s.\nSELECT %(a)s", "unused parameter b"),
    ],
)
def test_a_file_that_is_not_what_its_caller_expects_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(StatementError, match=complaint):
        statement(text)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(StatementError, match=r"no_such: tasks/no_such\.sql cannot be read"):
        read(queries.FOLDER, "no_such")


@pytest.mark.parametrize(
    ("sql", "writes"),
    [
        ("SELECT 1", False),
        ("SELECT 1 FROM updates", False),
        ("WITH a AS (DELETE FROM t RETURNING 1) SELECT 1", True),
        ("INSERT INTO t VALUES (1)", True),
        ("select 'x' -- update\n", False),
    ],
)
def test_what_writes_is_told_from_what_reads(sql: str, writes: bool) -> None:
    assert Statement("some", "-- One.\n" + sql, {}, lambda *columns: columns).writes is writes


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the SQL files, which the query module is made to load."""
    shutil.copytree(paths.root() / "sql", tmp_path / "sql")
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    return tmp_path / "sql" / "tasks"


def load() -> None:
    runpy.run_path(queries.__file__)


def test_the_query_module_loads_what_is_there(root: Path) -> None:
    load()


def test_a_file_that_nobody_calls_is_refused(root: Path) -> None:
    (root / "forgotten.sql").write_text("-- Promises.\nSELECT 1\n")
    with pytest.raises(StatementError, match="nothing calls forgotten"):
        load()


def test_a_call_without_a_file_is_refused(root: Path) -> None:
    (root / "get.sql").unlink()
    with pytest.raises(StatementError, match=r"get: tasks/get\.sql cannot be read"):
        load()


def test_a_changed_placeholder_is_refused(root: Path) -> None:
    text = (root / "get.sql").read_text()
    (root / "get.sql").write_text(text.replace("%(task_id)s", "%(id)s"))
    with pytest.raises(StatementError, match="get: unknown placeholder id"):
        load()
