"""Migrations that tests write."""

from pathlib import Path

from service.operations.migrate import files


def write(folder: Path, name: str, sql: str, rollback: str | None = "SELECT 1;") -> None:
    """A migration that follows the last one there."""
    last = max(path.stem for path in folder.glob("*.sql") if not path.name.endswith(files.ROLLBACK))
    depends = f"-- depends: {last}\n" if last < name and "-- depends" not in sql else ""
    (folder / f"{name}.sql").write_text(depends + sql)
    if rollback is not None:
        (folder / f"{name}.rollback.sql").write_text(rollback)


def fill_in(path: Path, sql: str) -> None:
    text = (
        path.read_text()
        .replace("what it does and why", "when a task is to be done")
        .replace("the data lost", "dates go")
    )
    path.write_text(text + sql)
