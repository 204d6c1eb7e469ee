"""What a migration's statement makes and drops, from its text.

Enough for the checks before a migration runs. What is not found here (DDL in a DO block, say) PostgreSQL's errors and
notices show while the migration runs. Must not import the driver.
"""

from collections.abc import Iterator
from typing import NamedTuple

from service.operations.migrate.reader import SERIALS, Kind, Reader, tokens

# Kinds that belong to the whole database or server: a migration uses one that exists, and its rollback keeps it.
SHARED: frozenset[Kind] = frozenset({"extension", "role"})

_MODIFIERS = {"OR", "REPLACE", "GLOBAL", "LOCAL", "UNLOGGED", "RECURSIVE", "CONSTRAINT", "UNIQUE"}
_TEMPORARY = {"TEMP", "TEMPORARY"}


class Thing(NamedTuple):
    """Something that a statement makes or drops. `table`: what a column, constraint, trigger, … belongs to."""

    kind: Kind
    name: str
    table: str | None = None
    schema: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.table}.{self.name}" if self.table else f"{self.kind} {self.name}"


def does_something(statements: tuple[str, ...]) -> bool:
    """Whether there is a statement that is no SET."""
    return any(found and found[0].keyword != "SET" for found in map(tokens, statements))


def made(statement: str) -> list[Thing]:
    """What the statement makes, implicit objects included: a key's index, an identity's sequence, a table's columns."""
    reader = Reader(tokens(statement))
    if reader.take("CREATE"):
        return list(_created(reader))
    if reader.take("ALTER", "TABLE"):
        table, schema = reader.table()
        return [thing for action in reader.parts() for thing in _added(action, table, schema)]
    return []


def dropped(statement: str) -> list[Thing]:
    """What the statement drops."""
    reader = Reader(tokens(statement))
    if reader.take("ALTER", "TABLE"):
        table, schema = reader.table()
        return [thing for action in reader.parts() for thing in _removed(action, table, schema)]
    if not reader.take("DROP"):
        return []
    kind = reader.kind()
    if kind is None:
        return []
    reader.take("CONCURRENTLY")
    reader.take("IF", "EXISTS")
    found: list[Thing] = []
    for part in reader.parts():
        name, schema = part.name()
        table = part.name()[0] if part.take("ON") else None
        found.append(Thing(kind, name, table, schema))
    return found


def columns_renamed(statement: str) -> list[tuple[str, str, str]]:
    """Table, old and new name of a column that the statement renames."""
    reader = Reader(tokens(statement))
    if not reader.take("ALTER", "TABLE"):
        return []
    table, _ = reader.table()
    if reader.take("RENAME", "COLUMN") or (reader.take("RENAME") and reader.peek() not in ("TO", "CONSTRAINT")):
        old = reader.name()[0]
        return [(table, old, reader.name()[0])] if reader.take("TO") else []
    return []


def hides_others(statement: str) -> bool:
    """Whether IF [NOT] EXISTS would pass over an object that the migration did not make."""
    found = tokens(statement)
    words = [token.keyword for token in found]
    if words[:1] not in (["CREATE"], ["DROP"], ["ALTER"]) or words[1:2] in (["EXTENSION"], ["ROLE"]):
        return False
    return any(
        words[place : place + 2] == ["IF", "EXISTS"] or words[place : place + 3] == ["IF", "NOT", "EXISTS"]
        for place in range(min(len(words), 12))
    ) or any(
        words[place : place + 4] in (["ADD", "COLUMN", "IF", "NOT"], ["DROP", "COLUMN", "IF", "EXISTS"])
        or words[place : place + 4] == ["DROP", "CONSTRAINT", "IF", "EXISTS"]
        for place in range(len(words))
    )


def index_of(statement: str) -> tuple[str, str, str | None] | None:
    """Name, table and schema of the index that the statement makes."""
    reader = Reader(tokens(statement))
    if not reader.take("CREATE"):
        return None
    found = next((thing for thing in _created(reader) if thing.kind == "index" and thing.table), None)
    return (found.name, found.table or "", found.schema) if found else None


def _created(reader: Reader) -> Iterator[Thing]:
    if reader.skip(_MODIFIERS | _TEMPORARY) & _TEMPORARY:
        return
    kind = reader.kind()
    if kind is None:
        return
    reader.take("CONCURRENTLY")
    reader.take("IF", "NOT", "EXISTS")
    if kind == "index" and reader.peek() == "ON":
        return  # PostgreSQL chooses a name that is free
    name, schema = reader.name()
    if kind in ("index", "trigger", "policy", "rule"):
        reader.until("TO" if kind == "rule" else "ON")
        reader.take("ONLY")
        table, of_schema = reader.name()
        yield Thing(kind, name, table, of_schema or schema)
        return
    yield Thing(kind, name, None, schema)
    if kind == "table" and reader.take("("):
        for part in reader.parts():
            yield from _element(part, name, schema)


def _element(part: Reader, table: str, schema: str | None) -> Iterator[Thing]:
    """A column or a constraint of a CREATE TABLE or an ADD."""
    if part.peek() in ("LIKE", "EXCLUDE", "CHECK", "PRIMARY", "FOREIGN", "UNIQUE") and part.peek(1) != ".":
        return  # PostgreSQL names it
    if part.take("CONSTRAINT"):
        name, _ = part.name()
        yield Thing("constraint", name, table, schema)
        if part.peek() in ("PRIMARY", "UNIQUE", "EXCLUDE") and "INDEX" not in part.words():
            yield Thing("index", name, table, schema)
        return
    column, _ = part.name()
    yield Thing("column", column, table, schema)
    words = part.words()
    if "IDENTITY" in words or (words[:1] and words[0].lower() in SERIALS):
        yield Thing("sequence", f"{table}_{column}_seq", None, schema)
    for place, word in enumerate(words[:-2]):
        if word == "CONSTRAINT":
            yield Thing("constraint", words[place + 1].lower(), table, schema)
            if words[place + 2] in ("PRIMARY", "UNIQUE"):
                yield Thing("index", words[place + 1].lower(), table, schema)


def _added(action: Reader, table: str, schema: str | None) -> Iterator[Thing]:
    if not action.take("ADD"):
        return
    action.take("COLUMN")
    action.take("IF", "NOT", "EXISTS")
    yield from _element(action, table, schema)


def _removed(action: Reader, table: str, schema: str | None) -> Iterator[Thing]:
    if not action.take("DROP"):
        return
    kind: Kind = "constraint" if action.take("CONSTRAINT") else "column"
    action.take("COLUMN")
    action.take("IF", "EXISTS")
    yield Thing(kind, action.name()[0], table, schema)
