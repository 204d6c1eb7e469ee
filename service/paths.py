"""Where the SQL files are: at the top of a checkout, or in an installed wheel's package."""

from functools import cache
from pathlib import Path


@cache
def root() -> Path:
    """The folder that holds `sql/` and `migrations/`."""
    package = Path(__file__).parent
    checkout = package.parent
    return checkout if (checkout / "sql" / "tasks").is_dir() else package / "_root"
