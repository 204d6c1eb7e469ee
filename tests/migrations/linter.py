"""The rules for migrations on a live database: squawk's, and what it lacks."""

# pglast types every field of every node as one that may be None.
# pyright: reportOptionalMemberAccess=false, reportOptionalIterable=false, reportOptionalSubscript=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pglast
from pglast import ast, enums
from pglast.visitors import Visitor

from service.operations.migrate import yoyo_format
from service.operations.migrate.files import ROLLBACK

NAME = re.compile(r"\d{4}\.[a-z0-9]+(-[a-z0-9]+)*\.sql")

# Whoever waits for a table's lock has everybody else wait behind it, for at most this long.
LONGEST_WAIT_MS = 1000
UNITS_MS = {"": 1, "ms": 1, "s": 1000, "min": 60_000}

# squawk's rules that do not fit, each with the reason.
SQUAWK = [
    # What may take long is what holds up nobody: an index CONCURRENTLY, a VALIDATE. Locks are bounded by lock_timeout.
    "--exclude=require-statement-timeout",
    "--pg-version=15",
    "--reporter=gcc",
]
# Taking back is dropping.
SQUAWK_ROLLBACK = ["--exclude=ban-drop-table", "--exclude=ban-drop-column"]


def findings(folder: Path) -> list[str]:
    """What is wrong with the migrations in `folder`, one line each."""
    return [f"{path.name}: {finding}" for path in sorted(folder.glob("*.sql")) for finding in _of(path)]


def _of(path: Path) -> Iterator[str]:
    back = path.name.endswith(ROLLBACK)
    forward = path.with_name(path.name.removesuffix(ROLLBACK) + ".sql") if back else path
    if not forward.exists():
        yield "takes back a migration that is not there"
        return
    directives, statements = yoyo_format.split(forward)
    transactional = directives.get("transactional", "true") != "false"
    if back:
        statements = yoyo_format.split(path)[1]
    else:
        yield from _place(path, directives)
    yield from _header(path, back)
    try:
        trees = [pglast.parse_sql(text) for text in statements]
    except pglast.parser.ParseError as error:
        yield f"does not parse: {error.args[0]}"
        return
    stmts = [raw.stmt for tree in trees for raw in tree]
    yield from _lock_timeout(stmts, transactional)
    if not transactional:
        yield from _alone(stmts)
    if not back:
        yield from _contract(path, stmts)
    for stmt in stmts:
        yield from _Looks().find(stmt)
    yield from _squawk(path, transactional, back)


def _place(path: Path, directives: dict[str, str]) -> Iterator[str]:
    """Its number, its rollback, and the one before it."""
    if not NAME.fullmatch(path.name):
        yield "is not named NNNN.what-it-does.sql"
    if not path.with_name(path.stem + ROLLBACK).exists():
        yield "has no rollback"
    others = sorted(other for other in path.parent.glob("*.sql") if not other.name.endswith(ROLLBACK))
    place = others.index(path)
    if path.name[:4] != f"{place + 1:04}":
        yield f"should have the number {place + 1:04}"
    before = others[place - 1].stem if place else ""
    if directives.get("depends") != before:
        yield f"should say `-- depends: {before}`"


def _header(path: Path, back: bool) -> Iterator[str]:
    header = list(takewhile(lambda line: line.startswith("--"), path.read_text().splitlines()))
    prose = " ".join(line[2:].strip() for line in header if not re.match(r"-- (Deploy|depends|transactional):", line))
    if len(prose.split()) < 6 or "what it does and why" in prose:
        yield "does not say in a comment at its top what it does and why"
    if back and not prose.startswith(f"Rolls back {path.name[:4]}"):
        yield f"does not begin with `Rolls back {path.name[:4]}` and what is lost"
    if not back and not any(re.fullmatch(r"-- Deploy: (pre|post)\.", line) for line in header):
        yield "does not say `-- Deploy: pre.` or `-- Deploy: post.`"


def _lock_timeout(stmts: list[ast.Node], transactional: bool) -> Iterator[str]:
    first = stmts[0] if stmts else None
    if not (isinstance(first, ast.VariableSetStmt) and first.name == "lock_timeout" and first.args):
        yield "does not begin with SET lock_timeout"
        return
    value = first.args[0].val
    match = re.fullmatch(r"(\d+)(ms|s|min)?", str(getattr(value, "sval", None) or getattr(value, "ival", "")))
    bound = int(match[1]) * UNITS_MS[match[2] or ""] if match else 0
    if not bound or (transactional and bound > LONGEST_WAIT_MS):
        yield f"has a lock_timeout that is not between 1 and {LONGEST_WAIT_MS} ms"


def _alone(stmts: list[ast.Node]) -> Iterator[str]:
    """Outside a transaction: one thing that needs it, and what makes it repeatable."""
    rest = [stmt for stmt in stmts if not isinstance(stmt, ast.VariableSetStmt)]
    made = [stmt for stmt in rest if not isinstance(stmt, ast.DropStmt)]
    if len(made) > 1 or any(not _is_concurrent(stmt) for stmt in rest):
        yield "does more outside a transaction than one CREATE INDEX CONCURRENTLY"
    for index in made:
        if isinstance(index, ast.IndexStmt) and index.idxname not in _dropped(rest[: rest.index(index)]):
            yield f"does not drop a half-built {index.idxname} first"


def _is_concurrent(stmt: ast.Node) -> bool:
    return isinstance(stmt, ast.IndexStmt | ast.DropStmt) and bool(stmt.concurrent)


def _dropped(stmts: list[ast.Node]) -> set[str]:
    drops = [stmt for stmt in stmts if isinstance(stmt, ast.DropStmt) and stmt.missing_ok]
    return {name[-1].sval for drop in drops for name in drop.objects}


def _contract(path: Path, stmts: list[ast.Node]) -> Iterator[str]:
    """What old code may still use goes after the deploy, when that code is gone."""
    taken = [stmt for stmt in stmts if isinstance(stmt, ast.RenameStmt)]
    taken += [
        stmt for stmt in stmts if isinstance(stmt, ast.DropStmt) and stmt.removeType != enums.ObjectType.OBJECT_INDEX
    ]
    commands = [command for stmt in stmts if isinstance(stmt, ast.AlterTableStmt) for command in stmt.cmds]
    taken += [command for command in commands if command.subtype == enums.AlterTableType.AT_DropColumn]
    if taken and "-- Deploy: post." not in path.read_text():
        yield "drops or renames what the code before it may use: that is `-- Deploy: post.`"


class _Looks(Visitor):
    """What is looked for at any depth of a statement."""

    def find(self, node: ast.Node) -> list[str]:
        self.found: list[str] = []
        self(node)
        return self.found

    def visit_A_Star(self, ancestors: object, node: ast.A_Star) -> None:
        self.found.append("has a SELECT *")

    def visit_Constraint(self, ancestors: object, node: ast.Constraint) -> None:
        kinds = enums.ConstrType
        named = {kinds.CONSTR_CHECK, kinds.CONSTR_PRIMARY, kinds.CONSTR_UNIQUE, kinds.CONSTR_FOREIGN}
        if node.contype in named and not node.conname:
            self.found.append("has a constraint without a name")

    def visit_IndexStmt(self, ancestors: object, node: ast.IndexStmt) -> None:
        if not node.idxname:
            self.found.append("has an index without a name")


def _squawk(path: Path, transactional: bool, back: bool) -> Iterator[str]:
    program = shutil.which("squawk", path=sysconfig.get_path("scripts")) or "squawk"
    assume = "--assume-in-transaction" if transactional else "--no-assume-in-transaction"
    command = [program, *SQUAWK, *(SQUAWK_ROLLBACK if back else []), assume, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(str(path)):
            yield "squawk: " + line.removeprefix(str(path)).lstrip(":0123456789 ")
    if done.returncode and not done.stdout.strip():
        yield f"squawk failed: {done.stderr.strip()}"
