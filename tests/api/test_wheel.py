"""The wheel holds all that the service needs: installed where there is nothing else, it serves from any folder."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support.processes import ROOT, RunningService, wait_ready

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_it_holds_the_package_the_sql_and_the_migrations_and_nothing_else(wheel: Path) -> None:
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT)) for path in (ROOT / "service").rglob("*") if "__pycache__" not in path.parts
    }
    expected = {name for name in expected if (ROOT / name).is_file()}
    for folder in ("sql", "migrations"):
        expected |= {f"service/_root/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.*")}
    assert files == expected


def test_installed_in_an_empty_environment_it_serves_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    subprocess.run([place / "bin" / "pip", "install", "-q", f"{wheel}[embedded]"], check=True)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    with RunningService(folder, command=[str(place / "bin" / "tasks-service")], PYTHONPATH="") as service:
        wait_ready(service.url)
        made = service.http.post("/api/u/tasks", json={"title": "x"})
        assert made.status_code == 201
        assert service.http.get(made.headers["location"]).json() == made.json()
        for path in ("/docs", "/openapi.json", "/metrics"):
            assert service.http.get(path).status_code == 200
        assert service.stop() == 0
    assert (folder / ".data" / "pgdata").is_dir()
