"""`tasks-service migrate lint`: the rules for migrations on a live database, the project's own and squawk's.

Reads files and asks no database. Each finding names the rule, the reason and the better form. Without squawk (the extra
`migrations`) only the project's own rules are held.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import msgspec

from service.operations.migrate import files, squawk, statements
from service.operations.migrate.files import ROLLBACK, Migration
from service.operations.migrate.reader import tokens
from service.operations.migrate.risks import risks_of

NAME = re.compile(r"\d{4}\.[a-z0-9]+(-[a-z0-9]+)*\.sql")

# While a statement waits for a table's lock, all later ones wait behind it; for at most this long.
LONGEST_WAIT_MS = 1000
UNITS_MS = {"": 1, "ms": 1, "s": 1000, "min": 60_000}


class Finding(msgspec.Struct, frozen=True):
    """`line` is 0 where the file as a whole is meant."""

    file: str
    line: int
    rule: str
    what: str
    why: str
    better: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.rule}: {self.what}\n  why: {self.why}\n  better: {self.better}"


def findings(where: Path | None = None, only: Sequence[Path] = ()) -> list[Finding]:
    """What is wrong with the migrations in the folder, or with the files `only` of it. Raises MigrationError where the
    files cannot be read at all.
    """
    where = where or files.folder()
    migrations = files.read(where)
    found = list(_of_the_whole(where, migrations))
    for migration in migrations:
        found += _of_a_file(migration, migrations, back=False)
        if migration.rollback is not None:
            found += _of_a_file(migration, migrations, back=True)
    names = {path.name for path in only}
    return [finding for finding in found if not names or finding.file in names]


def _of_the_whole(where: Path, migrations: tuple[Migration, ...]) -> Iterator[Finding]:
    ids = {migration.id for migration in migrations}
    for path in sorted(where.glob(f"*{ROLLBACK}")):
        if path.name.removesuffix(ROLLBACK) not in ids:
            yield Finding(
                path.name, 0, "rollback-alone", "rolls back a migration that is not there",
                "nothing ever runs it", "delete it, or give it the name of its migration",
            )  # fmt: skip
    for migration, problem in files.problems(migrations):
        what, _, better = problem.partition(": ")
        line = 0 if migration.is_filled_in else migration.unfilled_line
        yield Finding(
            migration.path.name, line, "files", what,
            "`migrate apply` says so too, and does not apply what is not filled in",
            better or "say how they follow each other",
        )  # fmt: skip
    for place, migration in enumerate(migrations):
        if not NAME.fullmatch(migration.path.name):
            yield Finding(
                migration.path.name, 0, "name", "is not named NNNN.what-it-does.sql",
                "the name orders the migrations and is what an operator reads", "rename it",
            )  # fmt: skip
        if migration.number.isdigit() and place and int(migration.number) > int(migrations[place - 1].number or 0) + 1:
            yield Finding(
                migration.path.name, 0, "name", f"should have the number {int(migrations[place - 1].number) + 1:04}",
                "a gap looks like a file that was lost", "rename it, and what depends on it",
            )  # fmt: skip
        if place and not migration.depends:
            yield Finding(
                migration.path.name, 0, "depends", "depends on nothing",
                "yoyo's own command could apply it before what it needs",
                f"write `-- depends: {migrations[place - 1].id}` in its header",
            )  # fmt: skip


def _of_a_file(migration: Migration, migrations: tuple[Migration, ...], *, back: bool) -> Iterator[Finding]:
    path = migration.rollback_path if back else migration.path
    texts = (migration.rollback or ()) if back else migration.statements
    transactional = migration.rollback_transactional if back else migration.transactional
    content = path.read_text("utf-8")
    yield from _header(path.name, content, back=back)
    yield from _lock_timeout(path.name, texts, transactional=transactional)
    if not transactional and not back:
        yield from _alone(path.name, texts)
    risky: list[range] = []
    new = {thing.name for text in texts for thing in statements.made(text) if thing.kind == "table"}  # has no rows
    for text in texts:
        first = content.count("\n", 0, max(content.find(text), 0)) + 1
        for finding in _of_a_statement(path.name, first, text, content, new, back=back):
            if finding.rule == "long-lock":
                risky.append(range(first, first + text.count("\n") + 1))
            yield finding
    for report in squawk.reports(path, transactional=transactional, back=back):
        line, rule = report.line + 1, report.rule_name
        if rule in squawk.LONG_LOCK and any(line in lines for lines in risky):
            continue
        better = report.help or f"see squawk's page on {rule}, or write `-- squawk-ignore {rule}` with a reason"
        yield Finding(path.name, line, rule, "squawk has an objection", report.message, better)


def _header(file: str, content: str, *, back: bool) -> Iterator[Finding]:
    header = list(takewhile(lambda line: line.startswith("--"), content.splitlines()))
    directive = re.compile(r"-- (Deploy|depends|transactional|replaces):")
    prose = " ".join(line[2:].strip() for line in header if not directive.match(line))
    if len(prose.split()) < 6 or "what it does and why" in prose:
        yield Finding(
            file, 1, "header", "does not say in a comment at its top what it does and why",
            "it is what an operator reads before running it", "write a sentence or two above the directives",
        )  # fmt: skip
    if back and not prose.startswith(f"Rolls back {file[:4]}: "):
        yield Finding(
            file, 1, "header", f"does not begin with `Rolls back {file[:4]}: ` and the data lost",
            "`migrate rollback` shows that sentence before it asks", f"write `-- Rolls back {file[:4]}: ….`",
        )  # fmt: skip
    if not back and not any(re.fullmatch(r"-- Deploy: (pre|post)\.", line) for line in header):
        yield Finding(
            file, 1, "deploy", "does not say `-- Deploy: pre.` or `-- Deploy: post.`",
            "what the old code needs may only go when that code is gone", "pre for what adds, post for what drops",
        )  # fmt: skip


def _lock_timeout(file: str, texts: Sequence[str], *, transactional: bool) -> Iterator[Finding]:
    match = re.match(
        r"SET\s+(?:LOCAL\s+)?lock_timeout\s*(?:=|TO)\s*'?(\d+)\s*(ms|s|min)?'?\s*;?$", texts[0] if texts else "", re.I
    )
    bound = int(match[1]) * UNITS_MS[match[2] or ""] if match else 0
    if match is None:
        what = "does not begin with SET lock_timeout"
    elif not bound or (transactional and bound > LONGEST_WAIT_MS):
        what = f"has a lock_timeout that is not between 1 and {LONGEST_WAIT_MS} ms"
    else:
        return
    yield Finding(
        file, 1, "lock-timeout", what, "while a statement waits for a table's lock, all later requests wait behind it",
        "SET lock_timeout = '500ms'; as the first statement: `migrate apply` tries again",
    )  # fmt: skip


def _alone(file: str, texts: Sequence[str]) -> Iterator[Finding]:
    """Outside a transaction: one thing that needs it."""
    rest = [text for text in texts if statements.does_something((text,))]
    if len(rest) > 1 or any(_fits_a_transaction(text) for text in rest):
        yield Finding(
            file, 0, "alone", "does more outside a transaction than one thing that needs it",
            "what fails half-way is half applied", "move the rest to another migration, in a transaction",
        )  # fmt: skip


def _fits_a_transaction(text: str) -> bool:
    words = [token.keyword for token in tokens(text)]
    return not (
        "CONCURRENTLY" in words or words[:1] in (["VACUUM"], ["CLUSTER"], ["CALL"]) or words[:2] == ["ALTER", "TYPE"]
    )


def _of_a_statement(file: str, line: int, text: str, content: str, new: set[str], *, back: bool) -> Iterator[Finding]:
    short = " ".join(text.split())[:60]
    found = tokens(text)
    words = [token.keyword for token in found]
    if statements.hides_others(text):
        yield Finding(
            file, line, "if-exists", f"IF [NOT] EXISTS: {short}",
            "it takes what somebody else made for the migration's own, and `rollback` then drops it",
            "leave it away: a migration runs once, and `apply` looks first whether something is in its way",
        )  # fmt: skip
    if not back and _takes_away(text) and "-- Deploy: post." not in content:
        yield Finding(
            file, line, "deploy", f"drops or renames what the code before it may use: {short}",
            "requests of the old code fail from then on", "`-- Deploy: post.`, and apply it when that code is gone",
        )  # fmt: skip
    if any(
        words[place] == "*" and words[place - 1] in ("SELECT", ".", ",", "RETURNING") for place in range(1, len(words))
    ):
        yield Finding(
            file, line, "star", f"has a SELECT *: {short}", "it means other columns after the next migration",
            "name the columns",
        )  # fmt: skip
    if _has_unnamed_constraint(words):
        yield Finding(
            file, line, "unnamed", f"has a constraint without a name: {short}",
            "no later migration, and no error message, can name it", "CONSTRAINT table_column_rule …",
        )  # fmt: skip
    if (words[:1] == ["CREATE"] and "INDEX" in words[:3] and words[words.index("INDEX") + 1 :][:1] == ["ON"]) or (
        words[:1] == ["CREATE"]
        and "INDEX" in words[:3]
        and words[words.index("INDEX") + 1 :][:2] == ["CONCURRENTLY", "ON"]
    ):
        yield Finding(
            file, line, "unnamed", f"has an index without a name: {short}", "its rollback cannot name it",
            "CREATE INDEX table_columns_idx ON …",
        )  # fmt: skip
    for risk in [] if back else risks_of(text):
        if risk.table in new:
            continue
        yield Finding(
            file, line, "long-lock", f"{risk.what}: {short}", "requests on the table wait or fail for as long",
            risk.better,
        )  # fmt: skip


def _takes_away(text: str) -> bool:
    words = [token.keyword for token in tokens(text)]
    renames = words[:1] == ["ALTER"] and "RENAME" in words
    drops = [thing for thing in statements.dropped(text) if thing.kind not in ("index", "constraint")]
    return renames or bool(drops)


def _has_unnamed_constraint(words: list[str]) -> bool:
    """PRIMARY KEY, UNIQUE, CHECK, FOREIGN KEY or REFERENCES that no CONSTRAINT name stands before."""
    if words[:1] not in (["CREATE"], ["ALTER"]) or "TABLE" not in words[:4]:
        return False
    for place, word in enumerate(words):
        following = words[place + 1 : place + 2]
        begins = (
            (word in ("PRIMARY", "FOREIGN") and following == ["KEY"])
            or (word == "CHECK" and following == ["("])
            or (word == "UNIQUE" and following != ["INDEX"])
            or (word == "REFERENCES" and "FOREIGN" not in words[max(place - 12, 0) : place])
        )
        if begins and words[place - 2 : place - 1] != ["CONSTRAINT"]:
            return True
    return False
