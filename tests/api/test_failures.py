"""What clients see of what goes wrong in the database: a row for each SQLSTATE that is listed, and some that are not.

PostgreSQL really raises each of them, in a trigger, with the code that the new task's title names.
"""

from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from service.database import SQLSTATES
from service.http import limits
from service.http.error_handler import CONSTRAINTS
from tests.support.processes import RunningService, wait_ready

UNAVAILABLE = (503, "Service is temporarily unavailable")
TOO_SLOW = (504, "The request took too long")
DEFECT = (500, "Internal server error")

TRIGGER = """
CREATE SEQUENCE tries;  -- a number that was taken stays taken, also where the statement fails

CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('tries');
    RAISE 'a secret of relation tasks' USING
        ERRCODE = NEW.title,
        DETAIL = 'Failing row contains (' || NEW.description || ')',
        HINT = 'a secret hint',
        CONSTRAINT = NEW.description;
END $$;

CREATE TRIGGER fail BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION fail();
"""


class Row(NamedTuple):
    listed: str  # in SQLSTATES
    raised: str
    answer: tuple[int, str]
    tries: int = 1


ROWS = [
    Row("08", "08006", UNAVAILABLE),
    Row("0A000", "0A000", DEFECT),
    Row("22", "22021", DEFECT),
    Row("23", "23514", DEFECT),  # by a constraint that nobody knows
    Row("25006", "25006", UNAVAILABLE),
    Row("25P04", "25P04", TOO_SLOW),
    Row("28", "28P01", UNAVAILABLE),
    Row("3D000", "3D000", UNAVAILABLE),
    Row("40001", "40001", UNAVAILABLE, 4),
    Row("40P01", "40P01", UNAVAILABLE, 4),
    Row("42501", "42501", UNAVAILABLE),
    Row("42P01", "42P01", UNAVAILABLE),
    Row("42703", "42703", UNAVAILABLE),
    Row("53", "53100", UNAVAILABLE),
    Row("55P03", "55P03", TOO_SLOW),
    Row("55006", "55006", UNAVAILABLE),
    Row("57014", "57014", TOO_SLOW),
    Row("57", "57P03", UNAVAILABLE),
    Row("58", "58030", UNAVAILABLE),
    Row("XX", "XX000", UNAVAILABLE),
]
UNLISTED = [
    Row("", "21000", DEFECT),
    Row("", "P0001", DEFECT),
    Row("", "ZZ999", DEFECT),
    Row("", "26000", DEFECT, 4),  # "prepared statement does not exist": prepared again, in vain
]


@pytest.fixture(scope="module")
def url(clone: Callable[[], str]) -> str:
    """A database in which no task can be created."""
    url = clone()
    with psycopg.connect(url) as connection:
        connection.execute(TRIGGER)
    return url


@pytest.fixture(scope="module")
def failing(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with RunningService(tmp_path_factory.mktemp("failing"), DATABASE_URL=url, AUTH_MODE="none") as running:
        wait_ready(running.url)
        yield running


def tries(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM tries").fetchone()
    assert row is not None
    return row[0]


def test_the_table_is_whole() -> None:
    assert [row.listed for row in ROWS] == list(SQLSTATES)


@pytest.mark.parametrize("row", [*ROWS, *UNLISTED], ids=lambda row: row.raised)
def test_each_sqlstate_has_its_answer(failing: RunningService, url: str, row: Row) -> None:
    before = tries(url)
    identifier = f"request-{row.raised}"
    answer = failing.http.post(
        "/api/u/tasks",
        json={"title": row.raised, "description": "tasks_secret_check"},
        headers={"X-Request-ID": identifier},
    )
    assert (answer.status_code, answer.json()) == (row.answer[0], {"error": row.answer[1]})
    always = {"content-type": "application/json", "x-content-type-options": "nosniff", "x-request-id": identifier}
    expected = always | {"content-length": str(len(answer.content))}
    shown = dict(answer.headers)
    assert parsedate_to_datetime(shown.pop("date"))
    assert shown.pop("cache-control") == "private, no-store"
    assert shown == expected | ({"retry-after": "1"} if answer.status_code == 503 else {})
    assert tries(url) == before + row.tries

    line = failing.logged(request_id=identifier)
    assert (line["status"], line["sqlstate"], line["route"]) == (row.answer[0], row.raised, "/api/{user_id}/tasks")


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_each_constraint_has_its_sentence(failing: RunningService, name: str) -> None:
    answer = failing.http.post("/api/u/tasks", json={"title": "23514", "description": name})
    error = CONSTRAINTS[name]()
    assert (answer.status_code, answer.json()) == (400, {"error": error.message, "field": error.field})


def test_each_constraint_is_one_of_the_schema(url: str) -> None:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT conname FROM pg_constraint").fetchall()
    assert set(CONSTRAINTS) <= {name for (name,) in rows}


@pytest.mark.parametrize(
    ("constraint", "limit"),
    [
        ("users_id_length", limits.USER_ID_LENGTH),
        ("tasks_title_length", limits.TITLE_LENGTH),
        ("tasks_description_length", limits.DESCRIPTION_LENGTH),
        ("idempotency_keys_key_length", limits.IDEMPOTENCY_KEY_LENGTH),
    ],
)
def test_a_limit_is_the_same_in_the_schema(url: str, constraint: str, limit: int) -> None:
    query = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s"
    with psycopg.connect(url) as connection:
        (definition,) = connection.execute(query, (constraint,)).fetchall()[0]
    assert f"<= {limit})" in definition


def test_no_title_or_description_is_logged(failing: RunningService) -> None:
    failing.http.post("/api/u/tasks", json={"title": "ZZ998", "description": "dear diary"})
    failing.logged(sqlstate="ZZ998")
    assert not any("dear diary" in line for line in failing.lines)


def test_what_failed_touches_nobody_else(failing: RunningService) -> None:
    for row in ROWS:
        assert failing.http.post("/api/u/tasks", json={"title": row.raised}).status_code >= 500
        assert failing.http.get("/api/u/tasks").json() == []
    wait_ready(failing.url)  # after a missing table or privilege, the statements are compared with the schema again


def test_a_statement_over_its_limit_is_a_504(clone: Callable[[], str], tmp_path: Path) -> None:
    url = clone()
    settings = {"DATABASE_URL": url, "AUTH_MODE": "none", "STATEMENT_TIMEOUT_MS": "200"}
    with RunningService(tmp_path, **settings) as running:
        wait_ready(running.url)
        path = running.http.post("/api/u/tasks", json={"title": "x"}).headers["location"]
        with psycopg.connect(url) as other:
            other.execute("SELECT FROM tasks FOR UPDATE")
            answer = running.http.put(path, json={"title": "y"})
            assert (answer.status_code, answer.json()) == (TOO_SLOW[0], {"error": TOO_SLOW[1]})
            assert running.http.get(path).json()["title"] == "x"
        assert running.http.put(path, json={"title": "y"}).json()["version"] == 2
