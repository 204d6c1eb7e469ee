"""How a migration's statement blocks requests that use its table, from its text.

Must not import the driver.
"""

from collections.abc import Iterator
from typing import NamedTuple

from service.operations.migrate.reader import SERIALS, Reader, Token, tokens

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


class Risk(NamedTuple):
    """How a statement blocks other uses of the table, and a form that does not."""

    table: str
    schema: str | None
    what: str
    better: str


def risks_of(statement: str) -> list[Risk]:
    """What blocks others for a time that grows with the table."""
    reader = Reader(tokens(statement))
    if reader.take("ALTER", "TABLE"):
        table, schema = reader.table()
        return [Risk(table, schema, *found) for action in reader.parts() for found in _action_risks(action)]
    return [Risk(name, schema, what, better) for (name, schema), what, better in _statement_risks(reader)]


def _action_risks(action: Reader) -> Iterator[tuple[str, str]]:
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


def _addition_risks(action: Reader, words: list[str]) -> Iterator[tuple[str, str]]:
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
        if computed or "STORED" in words or "IDENTITY" in words or any(word.lower() in SERIALS for word in words):
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


def _statement_risks(reader: Reader) -> Iterator[tuple[tuple[str, str | None], str, str]]:
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
