"""A statement: one hand-written SQL file, its parameters in order, and the struct its rows become."""

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from service.database.failures import InternalError

Row = TypeVar("Row")
Value = bytes | None  # a parameter as it is sent: PostgreSQL's text format, or NULL


@dataclass(slots=True)  # whose fields cost less to read than a NamedTuple's
class Prepared:
    """A statement as it is prepared on one connection."""

    name: bytes
    generation: int  # of its text: see `Statement.text`


_PLACEHOLDER = re.compile(r"%\((\w+)\)s")
_COMMENT = re.compile(r"--[^\n]*")
_LITERAL = re.compile(r"'(?:[^']|'')*'")


class Json:
    """The kind of a parameter whose values are JSON, already encoded: bytes."""


def _text(value: str) -> bytes:
    if "\0" in value:  # libpq would send what comes before it: another text, perhaps another user's name
        raise InternalError("PostgreSQL cannot hold a NUL in a text", "22021")
    return value.encode()


# How a Python value becomes PostgreSQL's text format. The server infers each parameter's type from the statement, so
# one statement has one prepared form whatever the values; psycopg's own dumpers would pick int2, int4 or int8 by value.
_ENCODERS: Mapping[type, Callable[[Any], bytes]] = {
    str: _text,
    int: b"%d".__mod__,
    bool: lambda value: b"t" if value else b"f",
    bytes: lambda value: b"\\x" + value.hex().encode(),
    Json: bytes,  # as it is: to decode 8 MiB and encode them again takes 13 ms
    list: lambda values: b"{%s}" % b",".join(b"%d" % value for value in values),  # of int
}


class StatementError(Exception):
    """A statement's file does not hold what the code that reads it expects."""


class Statement(Generic[Row]):
    """One statement, ready to be sent.

    `sql` has `$1`… for the file's named placeholders, and `{schema}` for the schema of the tables. `row_factory` takes
    the values of a row's columns in order; `writes` says whether it may change rows. `key` holds the positions of the
    parameters that name the one row it writes: in the service, calls with the same key follow each other. `lock_order`
    holds those by which it is sorted among the writes that share its transaction; without it (and without a key) it
    shares none. `owns(rows, arguments)` says whether these are rows of the user and the task that were asked for.
    """

    __slots__ = ("encoders", "key", "lock_order", "name", "owns", "parameters", "row_factory", "sql", "writes")

    def __init__(
        self,
        name: str,
        text: str,
        parameters: Mapping[str, type],
        row_factory: Callable[..., Row],
        *,
        key: tuple[str, ...] = (),
        lock_order: tuple[str, ...] = (),
        owns: Callable[[Sequence[Row], Sequence[Any]], bool] | None = None,
    ) -> None:
        """Raises StatementError for a file without a leading comment, with two statements, or with placeholders
        other than `parameters`.
        """
        if not text.lstrip().startswith("--"):
            raise StatementError(f"{name}: the file must begin with a comment that says what the statement promises")
        bare = _LITERAL.sub("''", _COMMENT.sub("", text)).strip()
        if not bare or ";" in bare.rstrip(";").rstrip():
            raise StatementError(f"{name}: the file must hold exactly one statement")
        used = set(_PLACEHOLDER.findall(bare))
        if unknown := used - parameters.keys():
            raise StatementError(f"{name}: unknown placeholder {', '.join(sorted(unknown))}")
        if unused := parameters.keys() - used:
            raise StatementError(f"{name}: unused parameter {', '.join(sorted(unused))}")
        order = list(parameters)
        self.name = name
        self.sql = _PLACEHOLDER.sub(
            lambda match: f"${order.index(match[1]) + 1}", _COMMENT.sub("", text).strip().rstrip(";")
        )
        self.parameters = tuple(order)
        self.encoders = tuple(_ENCODERS[kind] for kind in parameters.values())
        self.row_factory = row_factory
        self.writes = re.search(r"\b(insert|update|delete|merge)\b", bare, re.IGNORECASE) is not None
        self.key = tuple(order.index(part) for part in key)
        self.lock_order = tuple(order.index(part) for part in lock_order or key)
        self.owns = owns

    def text(self, generation: int = 0, schema: str = "public") -> bytes:
        """The statement's text as it is prepared: another one for each generation, with the same meaning. Its tables
        are those of `schema`: what a session's search path would find first may be another role's.
        """
        name = '"{}"'.format(schema.replace('"', '""'))
        literal = "'{}.".format(name.replace("'", "''"))  # where a text names a relation, for regclass
        parts = self.sql.split("'{schema}.")  # a schema may have such a name, too
        return literal.join([part.replace("{schema}", name) for part in parts]).encode() + b" " * generation

    def encode(self, values: tuple[object, ...]) -> list[Value]:
        """The values as they are sent. Raises InternalError for a text that PostgreSQL cannot hold."""
        encoded: list[Value] = []  # a comprehension with a strict zip costs twice as much
        for encode, value in zip(self.encoders, values):  # noqa: B905 -- PostgreSQL says so where one is missing
            encoded.append(None if value is None else encode(value))
        return encoded

    def explained(self) -> "Statement[Any]":
        """The statement that plans this one and checks its privileges, and does nothing."""
        twin = copy(self)
        # Another name: it is prepared and counted separately.
        twin.name, twin.sql = f"explain_{self.name}", f"EXPLAIN {self.sql}"
        twin.key, twin.lock_order, twin.owns = (), (), None
        return twin

    def __repr__(self) -> str:
        return f"Statement({self.name!r})"


def read(folder: Path, name: str) -> str:
    """The text of `name`.sql. Raises StatementError where there is no such file."""
    try:
        return (folder / f"{name}.sql").read_text("utf-8")
    except OSError as error:
        raise StatementError(f"{name}: {folder.name}/{name}.sql cannot be read: {error.strerror}") from error
