"""The statements and the schema that the migrations make fit each other: names, types, order."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import psycopg
import pytest
from psycopg import pq

import service
from service.database import Json, Statement
from service.monitoring.expired_records import EXPIRED_RECORDS
from service.operations.prune import CITUS, PRUNE, PRUNE_CITUS
from service.tasks.queries import FOLDER, STATEMENTS, IdempotentCreate

# PostgreSQL's types (pg_type.oid), as which Python's may come back and go in.
TYPES = {
    "bool": 16,
    "bytea": 17,
    "int8": 20,
    "int4": 23,
    "text": 25,
    "int4[]": 1007,
    "int8[]": 1016,
    "timestamptz": 1184,
    "jsonb": 3802,
}
RESULTS: dict[Any, set[str]] = {
    bool: {"bool"},
    int: {"int4", "int8"},
    str: {"text"},
    datetime: {"timestamptz"},
    list[int]: {"int8[]"},
}
PARAMETERS: dict[type, set[str]] = {
    bool: {"bool"},
    bytes: {"bytea"},
    int: {"int8"},  # an id does not fit into less
    str: {"text"},
    list: {"int4[]"},
    Json: {"jsonb"},
}


def columns(struct: type[msgspec.Struct]) -> Iterator[tuple[str, Any]]:
    """A row's columns, as its struct names them: a struct in a struct stands for its fields."""
    for name, hint in get_type_hints(struct).items():
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            yield from columns(hint)
        else:
            yield name, hint


def plain(hint: Any) -> Any:
    """The type without its `| None`."""
    if get_origin(hint) is list:
        return hint
    return next((part for part in get_args(hint) if part is not type(None)), hint)


def describe(url: str, statement: Statement[Any]) -> pq.abc.PGresult:
    """The statement, prepared."""
    with psycopg.connect(url) as connection:
        prepared = connection.pgconn.prepare(b"", statement.text())
        assert prepared.status == pq.ExecStatus.COMMAND_OK, prepared.get_error_message()
        return connection.pgconn.describe_prepared(b"")


@pytest.fixture(scope="module")
def url(clone: Any) -> str:
    return clone()


def test_every_file_has_its_statement_and_every_statement_its_file() -> None:
    assert {statement.name for statement in STATEMENTS} == {path.stem for path in FOLDER.glob("*.sql")}


def test_every_other_file_is_asked_by_its_name() -> None:
    code = "".join(path.read_text() for path in Path(service.__file__).parent.rglob("*.py"))
    names = [path.stem for path in (FOLDER.parent / "operations").glob("*.sql")]
    assert [name for name in names if f'"{name}"' not in code and f'"{name}.sql"' not in code] == []


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_the_columns_are_the_fields_of_the_struct(url: str, statement: Statement[Any]) -> None:
    result = describe(url, statement)
    made = statement.row_factory
    struct = made if isinstance(made, type) else get_type_hints(made)["return"]
    wanted = list(columns(struct))
    names = [(result.fname(index) or b"").decode() for index in range(result.nfields)]
    assert names == [name for name, _ in wanted]
    for index, (name, hint) in enumerate(wanted):
        assert result.ftype(index) in {TYPES[kind] for kind in RESULTS[plain(hint)]}, name


@pytest.mark.parametrize(
    "statement", [*STATEMENTS, CITUS, PRUNE, PRUNE_CITUS, EXPIRED_RECORDS], ids=lambda statement: statement.name
)
def test_the_parameters_have_the_types_they_are_sent_as(url: str, statement: Statement[Any]) -> None:
    result = describe(url, statement)
    assert result.nparams == len(statement.parameters)
    from service.database import statement as module

    kinds = {encode: kind for kind, encode in module._ENCODERS.items()}
    for index, (name, encode) in enumerate(zip(statement.parameters, statement.encoders, strict=True)):
        allowed = {TYPES[kind] for kind in PARAMETERS[kinds[encode]]}
        assert result.param_type(index) in allowed, name


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.name)
def test_no_statement_selects_whatever_there_is(statement: Statement[Any]) -> None:
    """SELECT * and RETURNING * would change under the code when a column is added."""
    assert "RETURNING *" not in statement.sql
    assert not any(line.strip().upper().startswith("SELECT *") for line in statement.sql.splitlines())


def test_a_keyed_answer_names_what_it_made() -> None:
    """IdempotentCreate is the one row that is not a task, so its columns are pinned here by name."""
    assert list(get_type_hints(IdempotentCreate)) == ["user_id", "same_request", "replayed", "task_ids", "created_at"]


def test_the_schema_trims_what_strip_trims(url: str) -> None:
    """Every character by which the CHECK refuses a title that is nothing else."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conname = 'tasks_title_trimmed'"
        ).fetchone()
        assert row is not None
        rows = connection.execute(
            f"""SELECT n FROM (
                SELECT n, chr(n) AS title FROM generate_series(1, 1114111) AS n WHERE n NOT BETWEEN 55296 AND 57343
            ) AS every WHERE NOT ({row[0]})""".encode()
        ).fetchall()
    assert {n for (n,) in rows} == {n for n in range(1, 0x110000) if not chr(n).strip()}
