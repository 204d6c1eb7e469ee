"""The results: written, read, shown, compared; and a service that runs already, which is left as it was."""

import base64
import json
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from rich.progress import Progress

from tests.load import accounts, report, results
from tests.load.__main__ import cli
from tests.load.closed_loop import Sample
from tests.load.results import Run
from tests.load.scale import Point
from tests.load.stages import Stages
from tests.load.targets import GO, SERVICE
from tests.support.processes import RunningService

pytestmark = pytest.mark.load


def sample(target: str, rps: float, cost: float = 50) -> Sample:
    return Sample(target, "get", 32, int(rps), rps, 1, 2, 3, 4, {"status": 0}, cost, 30, 60, 100)


def run(*rates: float) -> Run:
    found = Run("2026-11-21T00:00:00Z", {"connections": "32"}, {"processor": "2 x abacus"})
    found.closed_loop = [sample(SERVICE, rps) for rps in rates] + [sample(GO, rps * 2) for rps in rates]
    found.stages = [Stages("get", 20, 2, 3, 10, 1, 0.5, 40, 17)]
    found.scale = [Point(axis, 1, "get", 100, 90, 110, 3, 40, 20) for axis in ("rows", "connections", "workers")]
    return found


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    before = run(100, 110)
    assert results.read(results.write(before, tmp_path)) == before


def test_the_report_has_medians_shares_and_plots(tmp_path: Path) -> None:
    text = report.write(run(100, 130, 110), tmp_path).read_text()
    assert "| get | service | 110 | 100 to 130 |  | 0.50 |" in text
    assert "| get | Go + pgx | 220 | 200 to 260 |  | 1.00 |" in text
    assert "| get | 20.0 | 2.0 | 3.0 | 10.0 | 1.0 | 0.5 | 3.5 | 40.0 | 17.0 |" in text
    for plot in ("peak", "stages", "scale"):
        assert f"({plot}.svg)" in text
        assert (tmp_path / f"{plot}.svg").read_text().startswith("<?xml")
    assert "latency" not in text


def test_two_runs_side_by_side_tell_change_from_noise() -> None:
    shown = results.compared(run(100, 110, 120), run(115, 125, 135)).rows
    assert shown[0][:4] == ["get", "service", "110 → 125", "≈ +14 %"]
    shown = results.compared(run(100, 110, 120), run(200, 220, 240)).rows
    assert shown[0][:4] == ["get", "service", "110 → 220", "+100 %"]
    shown = results.compared(run(200, 220, 240), run(100, 110, 120)).rows
    assert shown[0][:4] == ["get", "service", "220 → 110", "-50 %"]


def test_the_report_command_puts_another_run_beside(tmp_path: Path) -> None:
    for name, rates in (("old", (100.0, 110.0)), ("new", (300.0, 310.0))):
        (tmp_path / name).mkdir()
        results.write(run(*rates), tmp_path / name)
    done = CliRunner().invoke(cli, ["report", f"{tmp_path}/new/run.json", "--compare", f"{tmp_path}/old/run.json"])
    assert done.exit_code == 0, done.output
    assert "105 → 305" in done.output


def test_a_service_elsewhere_is_not_loaded_by_mistake(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["--url", "https://tasks.example.com", "--results", str(tmp_path)])
    assert done.exit_code == 2
    assert "not on this machine" in done.output


def test_a_token_names_its_user() -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"sub": "ann@example.com"}).encode()).decode().rstrip("=")
    assert accounts.user_of(f"e30.{claims}.c2ln") == "ann@example.com"


def test_a_service_that_runs_already_is_left_as_it_was(
    service: RunningService, client: httpx.Client, user: str
) -> None:
    path = f"/api/{user}/tasks"
    mine = client.post(path, json={"title": "Mine"}).json()
    with (
        Progress(disable=True) as progress,
        accounts.using(service.url, "", user, 1200, progress) as (target, workload),
    ):
        ids = Path(workload.ids).read_text().split()
        assert len(set(ids)) == 1200
        assert str(mine["id"]) not in ids
        assert client.get(f"{path}/{ids[0]}").status_code == 200
        assert target.pid is None
        client.post(path, json={"title": f"{accounts.TITLE} 5"})  # as the load itself makes them
    assert client.get(path).json() == [mine]
