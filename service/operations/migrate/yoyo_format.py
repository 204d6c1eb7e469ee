"""All that is taken from yoyo: how a file is read, and the key of a migration in its tables. Its own command reads the
same files and the same history.
"""
# yoyo has no type hints.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import re
from pathlib import Path

from yoyo.migrations import get_migration_hash, read_sql_migration

_REPLACES = re.compile(r"^replaces:(.*)$", re.MULTILINE)


def split(path: Path) -> tuple[dict[str, str], list[str]]:
    """A file's directives (`depends`, `transactional`, `replaces`) and its statements."""
    directives, comment, statements = read_sql_migration(str(path))
    if found := _REPLACES.findall(comment):  # yoyo knows the other two
        directives["replaces"] = " ".join(found)
    return directives, statements


def digest(migration_id: str) -> str:
    """The key of a migration in yoyo's tables: of its id, not of what is in it."""
    return str(get_migration_hash(migration_id))
