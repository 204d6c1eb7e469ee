"""PostgreSQL's notices while a statement of a migration runs."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import psycopg

from service.operations.migrate import statements
from service.operations.migrate.reader import tokens

# PostgreSQL's notice where IF NOT EXISTS passes over a table, a column or a schema, and over any other object.
EXISTS = {"42P07", "42701", "42P06"}
OTHER_EXISTS = "42710"


class Foreign(Exception):
    """A statement with IF NOT EXISTS found what the migration would have made."""


@contextmanager
def noticed(connection: psycopg.Connection[Any], text: str, say: Callable[[str], None]) -> Generator[None]:
    """Passes the notices of the statement `text` on. Raises Foreign, afterwards, where it passed over an object."""
    met: list[str] = []

    def note(notice: psycopg.errors.Diagnostic) -> None:
        message = notice.message_primary or ""
        other = notice.sqlstate == OTHER_EXISTS and statements.hides_others(text) and not _adds_value(text)
        if notice.sqlstate in EXISTS or other:
            met.append(message)
        else:
            say(f"{notice.severity or 'NOTICE'}: {message}")

    connection.add_notice_handler(note)
    try:
        yield
    finally:
        connection.remove_notice_handler(note)
    if met:
        raise Foreign(met[0].removesuffix(", skipping"))


def _adds_value(text: str) -> bool:
    """ALTER TYPE … ADD VALUE IF NOT EXISTS: a value of an enum that is the migration's own."""
    return [token.keyword for token in tokens(text)[:2]] == ["ALTER", "TYPE"]
