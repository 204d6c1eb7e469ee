"""A folder of migrations that a test may write to."""

from pathlib import Path

import pytest

from service.operations.migrate import files
from service.paths import root


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of migrations that a test can write to, in place of the project's."""
    folder = tmp_path / "migrations"
    folder.mkdir()
    for path in sorted((root() / "migrations").glob("000[12]*.sql")):
        (folder / path.name).write_text(path.read_text())
    monkeypatch.setattr(files, "folder", lambda: folder)
    return folder
