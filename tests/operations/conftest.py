"""A place for the service's own PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every account can pass through: pytest's own is closed."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)
