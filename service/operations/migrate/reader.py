"""A tokenizer for SQL, and a reader of the heads of DDL statements: not a parser, for installations that have none.

tests/migrations compare what is read with PostgreSQL's parser. Must not import the driver.
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

# By the words of a statement.
_KINDS: dict[str, Kind] = {
    "TABLE": "table", "FOREIGN TABLE": "table", "INDEX": "index", "SEQUENCE": "sequence",
    "VIEW": "view", "MATERIALIZED VIEW": "view", "TYPE": "type", "DOMAIN": "type",
    "FUNCTION": "function", "PROCEDURE": "function", "AGGREGATE": "function", "ROUTINE": "function",
    "SCHEMA": "schema", "EXTENSION": "extension", "ROLE": "role", "USER": "role", "GROUP": "role",
    "TRIGGER": "trigger", "EVENT TRIGGER": "event trigger", "POLICY": "policy", "RULE": "rule",
    "STATISTICS": "statistics", "COLLATION": "collation", "PUBLICATION": "publication",
}  # fmt: skip
# The pseudo-types that make a sequence.
SERIALS = {"serial", "bigserial", "smallserial", "serial4", "serial8", "serial2"}


class Token(NamedTuple):
    kind: Literal["text", "quoted", "word", "other"]
    text: str

    @property
    def keyword(self) -> str:
        return self.text.upper() if self.kind == "word" else self.text

    @property
    def name(self) -> str:
        return self.text[1:-1].replace('""', '"') if self.kind == "quoted" else self.text.lower()


def tokens(statement: str) -> list[Token]:
    """Without comments and white space."""
    return [
        Token(match.lastgroup if match.lastgroup != "tag" else "text", match[0])  # type: ignore[arg-type]
        for match in _TOKEN.finditer(statement)
        if match.lastgroup != "space"
    ]


class Reader:
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
        return next((kind for words, kind in _KINDS.items() if self.take(*words.split())), None)

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

    def parts(self) -> Iterator["Reader"]:
        """What is left, split at commas that are in no parentheses."""
        depth, part = 0, list[Token]()
        for token in self._found[self._at :]:
            depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(token.text, 0) if token.kind == "other" else 0
            if depth < 0 or (token.text == ";" and token.kind == "other"):
                break
            if token.text == "," and depth == 0:
                yield Reader(part)
                part = []
            else:
                part.append(token)
        if part:
            yield Reader(part)

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
