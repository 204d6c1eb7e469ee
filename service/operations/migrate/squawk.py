"""squawk, a linter for migrations: a program that the extra `migrations` installs."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import msgspec

from service.operations.migrate.errors import MigrationError

# squawk's rules that do not fit, each with the reason.
OPTIONS = [
    # Only statements that block no others may take long: an index CONCURRENTLY, a VALIDATE. lock_timeout bounds locks.
    "--exclude=require-statement-timeout",
    # It asks for IF [NOT] EXISTS outside transactions, which takes other people's tables for the migration's.
    "--exclude=prefer-robust-stmts",
    "--pg-version=15",
    "--reporter=json",
]
# Rolling back is dropping.
ROLLBACK_OPTIONS = [
    "--exclude=ban-drop-table",
    "--exclude=ban-drop-column",
    "--exclude=ban-drop-not-null",
    "--exclude=ban-drop-constraint",
]
# Rules that object to what service.operations.migrate.risks finds too, and says with a better form.
LONG_LOCK = {
    "changing-column-type",
    "adding-not-nullable-field",
    "adding-required-field",
    "adding-field-with-default",
    "adding-serial-primary-key-field",
    "constraint-missing-not-valid",
    "adding-foreign-key-constraint",
    "disallowed-unique-constraint",
    "require-concurrent-index-creation",
    "require-concurrent-reindex",
}


class Report(msgspec.Struct):
    """An objection. `line` counts from 0."""

    line: int
    rule_name: str
    message: str
    help: str | None = None


def is_installed() -> bool:
    return _program() is not None


def reports(path: Path, *, transactional: bool, back: bool) -> list[Report]:
    """What squawk says of a file; `back`: of a rollback. Nothing where it is not installed. Raises MigrationError where
    it fails.
    """
    program = _program()
    if program is None:
        return []
    assume = "--assume-in-transaction" if transactional else "--no-assume-in-transaction"
    command = [program, *OPTIONS, *(ROLLBACK_OPTIONS if back else []), assume, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = msgspec.json.decode(done.stdout or "[]", type=list[Report])
    except msgspec.DecodeError:
        raise MigrationError(f"squawk failed on {path.name}: {(done.stderr or done.stdout).strip()}") from None
    if done.returncode and not found:
        raise MigrationError(f"squawk failed on {path.name}: {done.stderr.strip()}")
    return found


def _program() -> str | None:
    return shutil.which("squawk", path=sysconfig.get_path("scripts")) or shutil.which("squawk")
