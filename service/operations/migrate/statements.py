"""What a migration's statement makes, drops, and locks, from its text.

A tokenizer and the heads of DDL statements, not a parser: enough to refuse and to warn before anything is run, in an
installation that has no SQL parser. What it does not see (DDL in a DO block, say) PostgreSQL's own errors and notices
catch while the migration runs. tests/migrations compare it with PostgreSQL's parser. Must not import the driver.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*|/\*.*?\*/)
    | (?P<text>[eE]'(?:[^'\\]|\\.|'')*'|(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*")
    | (?P<word>[^\W\d][\w$]*)
    | (?P<other>::|\d[\w.]*|.)
    """,
    re.VERBOSE | re.DOTALL,
)

Kind = Literal[
    "table", "index", "sequence", "view", "type", "function", "schema", "extension", "role", "trigger", "policy",
    "rule", "column", "constraint", "statistics", "collation", "event trigger", "publication",
]  # fmt: skip

# Kinds that belong to the whole database or server: one that is there already is used, and nobody's rollback drops it.
SHARED: frozenset[Kind] = frozenset({"extension", "role"})

_KINDS: tuple[tuple[tuple[str, ...], Kind], ...] = (
    (("TABLE",), "table"),
    (("FOREIGN", "TABLE"), "table"),
    (("INDEX",), "index"),
    (("SEQUENCE",), "sequence"),
    (("MATERIALIZED", "VIEW"), "view"),
    (("VIEW",), "view"),
    (("TYPE",), "type"),
    (("DOMAIN",), "type"),
    (("FUNCTION",), "function"),
    (("PROCEDURE",), "function"),
    (("AGGREGATE",), "function"),
    (("ROUTINE",), "function"),
    (("SCHEMA",), "schema"),
    (("EXTENSION",), "extension"),
    (("ROLE",), "role"),
    (("USER",), "role"),
    (("GROUP",), "role"),
    (("EVENT", "TRIGGER"), "event trigger"),
    (("TRIGGER",), "trigger"),
    (("POLICY",), "policy"),
    (("RULE",), "rule"),
    (("STATISTICS",), "statistics"),
    (("COLLATION",), "collation"),
    (("PUBLICATION",), "publication"),
)
_MODIFIERS = {"OR", "REPLACE", "GLOBAL", "LOCAL", "UNLOGGED", "RECURSIVE", "CONSTRAINT", "UNIQUE"}
_TEMPORARY = {"TEMP", "TEMPORARY"}
_SERIALS = {"serial", "bigserial", "smallserial", "serial4", "serial8", "serial2"}
# Functions whose value is the same for a whole statement, so that a column that has one as its default is not written
# into every row.
_STABLE = {
    "now",
    "current_timestamp",
    "current_date",
    "transaction_timestamp",
    "statement_timestamp",
    "current_setting",
}


class Token(NamedTuple):
    kind: Literal["text", "quoted", "word", "other"]
    text: str

    @property
    def keyword(self) -> str:
        return self.text.upper() if self.kind == "word" else self.text

    @property
    def name(self) -> str:
        return self.text[1:-1].replace('""', '"') if self.kind == "quoted" else self.text.lower()


class Thing(NamedTuple):
    """Something that a statement makes or drops. `table`: what a column, constraint, trigger, … belongs to."""

    kind: Kind
    name: str
    table: str | None = None
    schema: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.table}.{self.name}" if self.table else f"{self.kind} {self.name}"


class Risk(NamedTuple):
    """What a statement does to others that use the table, and the form that does not."""

    table: str
    schema: str | None
    what: str
    better: str


def tokens(statement: str) -> list[Token]:
    """Without comments and white space."""
    return [
        Token(match.lastgroup if match.lastgroup != "tag" else "text", match[0])  # type: ignore[arg-type]
        for match in _TOKEN.finditer(statement)
        if match.lastgroup != "space"
    ]


def does_something(statements: tuple[str, ...]) -> bool:
    """Whether there is a statement that is no SET."""
    return any(found and found[0].keyword != "SET" for found in map(tokens, statements))


def made(statement: str) -> list[Thing]:
    """What the statement makes, with what comes along: a key's index, an identity's sequence, a table's columns."""
    reader = _Reader(tokens(statement))
    if reader.take("CREATE"):
        return list(_created(reader))
    if reader.take("ALTER", "TABLE"):
        table, schema = reader.table()
        return [thing for action in reader.parts() for thing in _added(action, table, schema)]
    return []


def dropped(statement: str) -> list[Thing]:
    """What the statement drops."""
    reader = _Reader(tokens(statement))
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
    reader = _Reader(tokens(statement))
    if not reader.take("ALTER", "TABLE"):
        return []
    table, _ = reader.table()
    if reader.take("RENAME", "COLUMN") or (reader.take("RENAME") and reader.peek() not in ("TO", "CONSTRAINT")):
        old = reader.name()[0]
        return [(table, old, reader.name()[0])] if reader.take("TO") else []
    return []


def is_concurrent(statement: str) -> bool:
    """Whether it is CREATE or DROP INDEX CONCURRENTLY."""
    found = [token.keyword for token in tokens(statement)[:4]]
    return found[:1] in (["CREATE"], ["DROP"]) and "INDEX" in found and "CONCURRENTLY" in found


def hides_others(statement: str) -> bool:
    """Whether IF [NOT] EXISTS would take what somebody else made for the migration's own."""
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
    reader = _Reader(tokens(statement))
    if not reader.take("CREATE"):
        return None
    found = next((thing for thing in _created(reader) if thing.kind == "index" and thing.table), None)
    return (found.name, found.table or "", found.schema) if found else None


def risks(statement: str) -> list[Risk]:
    """What would hold others up for as long as the table is large."""
    reader = _Reader(tokens(statement))
    if reader.take("ALTER", "TABLE"):
        table, schema = reader.table()
        return [Risk(table, schema, *found) for action in reader.parts() for found in _action_risks(action)]
    return [Risk(name, schema, what, better) for (name, schema), what, better in _statement_risks(reader)]


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, found: list[Token]) -> None:
        self._found = found
        self._at = 0

    def peek(self, ahead: int = 0) -> str:
        place = self._at + ahead
        return self._found[place].keyword if place < len(self._found) else ""

    def take(self, *words: str) -> bool:
        if [token.keyword for token in self._found[self._at : self._at + len(words)]] != list(words):
            return False
        self._at += len(words)
        return True

    def skip(self, words: set[str]) -> set[str]:
        passed: set[str] = set()
        while self.peek() in words:
            passed.add(self.peek())
            self._at += 1
        return passed

    def kind(self) -> Kind | None:
        return next((kind for words, kind in _KINDS if self.take(*words)), None)

    def name(self) -> tuple[str, str | None]:
        """The name and the schema that is written before it."""
        parts = [self._next_name()]
        while self.take("."):
            parts.append(self._next_name())
        return parts[-1], parts[-2] if len(parts) > 1 else None

    def table(self) -> tuple[str, str | None]:
        """The table of an ALTER TABLE."""
        self.take("IF", "EXISTS")
        self.take("ONLY")
        return self.name()

    def until(self, word: str) -> bool:
        """Moves behind the word."""
        while self._at < len(self._found):
            self._at += 1
            if self._found[self._at - 1].keyword == word:
                return True
        return False

    def parts(self) -> Iterator["_Reader"]:
        """What is left, split at commas that are in no parentheses."""
        depth, part = 0, list[Token]()
        for token in self._found[self._at :]:
            depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(token.text, 0) if token.kind == "other" else 0
            if depth < 0 or (token.text == ";" and token.kind == "other"):
                break
            if token.text == "," and depth == 0:
                yield _Reader(part)
                part = []
            else:
                part.append(token)
        if part:
            yield _Reader(part)

    def words(self) -> list[str]:
        """What is left, without what is in parentheses."""
        depth, found = 0, list[str]()
        for token in self._found[self._at :]:
            step = {"(": 1, ")": -1}.get(token.text, 0) if token.kind == "other" else 0
            if depth == 0 and step == 0:
                found.append(token.keyword)
            depth += step
        return found

    def rest(self) -> list[Token]:
        return self._found[self._at :]

    def _next_name(self) -> str:
        if self._at >= len(self._found):
            return ""
        self._at += 1
        return self._found[self._at - 1].name


def _created(reader: _Reader) -> Iterator[Thing]:
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


def _element(part: _Reader, table: str, schema: str | None) -> Iterator[Thing]:
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
    if "IDENTITY" in words or (words[:1] and words[0].lower() in _SERIALS):
        yield Thing("sequence", f"{table}_{column}_seq", None, schema)
    for place, word in enumerate(words[:-2]):
        if word == "CONSTRAINT":
            yield Thing("constraint", words[place + 1].lower(), table, schema)
            if words[place + 2] in ("PRIMARY", "UNIQUE"):
                yield Thing("index", words[place + 1].lower(), table, schema)


def _added(action: _Reader, table: str, schema: str | None) -> Iterator[Thing]:
    if not action.take("ADD"):
        return
    action.take("COLUMN")
    action.take("IF", "NOT", "EXISTS")
    yield from _element(action, table, schema)


def _removed(action: _Reader, table: str, schema: str | None) -> Iterator[Thing]:
    if not action.take("DROP"):
        return
    kind: Kind = "constraint" if action.take("CONSTRAINT") else "column"
    action.take("COLUMN")
    action.take("IF", "EXISTS")
    yield Thing(kind, action.name()[0], table, schema)


def _action_risks(action: _Reader) -> Iterator[tuple[str, str]]:
    words = action.words()
    text = " ".join(words)
    if words[:1] == ["ALTER"]:
        if " TYPE " in f"{text} ":
            yield (
                "changes a column's type: the whole table is rewritten while nobody can read or write it",
                "add a column of the new type, fill it in batches, and use it instead",
            )
        elif text.endswith("SET NOT NULL"):
            yield (
                "sets NOT NULL: every row is read while nobody can read or write the table",
                "add CHECK (… IS NOT NULL) NOT VALID, validate it in a later migration, then SET NOT NULL",
            )
    elif words[:1] == ["ADD"]:
        yield from _addition_risks(action, words)
    elif words[:1] == ["SET"] and words[1:2] and words[1] in ("TABLESPACE", "LOGGED", "UNLOGGED", "ACCESS"):
        yield f"SET {words[1]}: the whole table is rewritten while nobody can read or write it", "do it in a quiet hour"
    elif words[:1] == ["ATTACH"]:
        yield (
            "attaches a partition: every row of it is read while it is locked",
            "give it a matching CHECK first, validated",
        )


def _addition_risks(action: _Reader, words: list[str]) -> Iterator[tuple[str, str]]:
    constraint = words[1:2] and words[1] in ("CONSTRAINT", "CHECK", "FOREIGN", "PRIMARY", "UNIQUE", "EXCLUDE")
    valid = "NOT VALID" not in " ".join(words)
    if constraint and ("CHECK" in words or "FOREIGN" in words) and valid:
        yield (
            "adds a constraint: every row is checked while nobody can write the table",
            "add it NOT VALID, and VALIDATE CONSTRAINT in a later migration",
        )
    elif constraint and {"PRIMARY", "UNIQUE", "EXCLUDE"} & set(words) and "INDEX" not in words:
        yield (
            "adds a key: its index is built while nobody can read or write the table",
            "CREATE UNIQUE INDEX CONCURRENTLY outside a transaction, then ADD CONSTRAINT … USING INDEX",
        )
    elif not constraint:
        called = [
            token.name for token, after in zip(action.rest(), action.rest()[1:], strict=False) if after.text == "("
        ]
        computed = "DEFAULT" in words and any(
            name in _calls_after(action.rest(), "DEFAULT") for name in called if name not in _STABLE
        )
        if computed or "STORED" in words or "IDENTITY" in words or any(word.lower() in _SERIALS for word in words):
            yield (
                "adds a column with a computed value: the whole table is rewritten while nobody can read or write it",
                "add the column without it, set the default in a second statement, and fill old rows in batches",
            )
        if "NOT NULL" in " ".join(words) and "DEFAULT" not in words and "GENERATED" not in words:
            yield (
                "adds a column that is NOT NULL and has no default: it fails where there are rows",
                "give it a constant default, or leave NOT NULL away",
            )
        if "UNIQUE" in words or "PRIMARY" in words:
            yield (
                "adds a key: its index is built while nobody can read or write the table",
                "add the column alone, then CREATE UNIQUE INDEX CONCURRENTLY outside a transaction",
            )


def _calls_after(found: list[Token], word: str) -> set[str]:
    place = next(n for n, token in enumerate(found) if token.keyword == word)
    return {token.name for token, after in zip(found[place:], found[place + 1 :], strict=False) if after.text == "("}


def _statement_risks(reader: _Reader) -> Iterator[tuple[tuple[str, str | None], str, str]]:
    word = reader.peek()
    if word == "CREATE":
        reader.take("CREATE")
        reader.take("UNIQUE")
        if reader.take("INDEX") and not reader.take("CONCURRENTLY") and reader.until("ON"):
            reader.take("ONLY")
            yield (
                reader.name(),
                "builds an index: nobody can write the table meanwhile",
                "CREATE INDEX CONCURRENTLY, in a migration with `-- transactional: false`",
            )
    elif word == "REINDEX" and "CONCURRENTLY" not in reader.words():
        reader.take("REINDEX")
        if reader.until("TABLE"):
            yield reader.name(), "builds indexes anew: nobody can write the table meanwhile", "REINDEX … CONCURRENTLY"
    elif word in ("CLUSTER", "TRUNCATE"):
        reader.take(word)
        reader.take("TABLE")
        does = "rewrites the whole table" if word == "CLUSTER" else "removes every row"
        yield (
            reader.name(),
            f"{does} while nobody can read or write it",
            "do it in batches" if word == "TRUNCATE" else ("do it in a quiet hour"),
        )
    elif word == "VACUUM" and any(token.keyword == "FULL" for token in reader.rest()):
        names = [token for token in reader.rest() if token.kind in ("word", "quoted")]
        yield (
            (names[-1].name, None),
            "rewrites the whole table while nobody can read or write it",
            "VACUUM without FULL",
        )
    elif word == "REFRESH" and "CONCURRENTLY" not in reader.words():
        reader.take("REFRESH", "MATERIALIZED", "VIEW")
        yield reader.name(), "nobody can read the view meanwhile", "REFRESH MATERIALIZED VIEW CONCURRENTLY"
    elif word == "LOCK":
        reader.take("LOCK")
        reader.take("TABLE")
        reader.take("ONLY")
        yield reader.name(), "locks the table until the migration ends", "leave it away"
    elif word in ("UPDATE", "DELETE") and "WHERE" not in reader.words():
        reader.take(word)
        reader.take("FROM")
        reader.take("ONLY")
        yield (
            reader.name(),
            f"{word}s every row in one transaction, and keeps them locked until it ends",
            "do it in batches of some thousand rows, outside a migration",
        )
