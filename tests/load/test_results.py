"""The results: written, read, shown, compared; the commands that show them."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tests.load import measurements, report, results
from tests.load.bench import RESULTS, Bench, Options
from tests.load.cli import cli
from tests.load.closed_loop import Sample
from tests.load.comparison import compared
from tests.load.flood import Flood
from tests.load.remote import Latency, Remote, Wait
from tests.load.results import Run
from tests.load.scale import Point
from tests.load.stages import Stages
from tests.load.targets import GO, RUST, SERVICE

pytestmark = pytest.mark.load

DEFAULTS = Options(1000, 100_000, 2.0, 4, 32, 16, 2, RESULTS, None)


def sample(target: str, rps: float, cost: float = 50) -> Sample:
    return Sample(target, "get", 32, int(rps), rps, 1, 2, 3, 4, {"status": 0}, cost, 30, 60, 100, 7.5)


def run(*rates: float) -> Run:
    found = Run("2026-11-21T00:00:00Z", {"connections": "32"}, {"processor": "2 x abacus"})
    found.closed_loop = [sample(SERVICE, rps) for rps in rates] + [sample(GO, rps * 2) for rps in rates]
    found.stages = [Stages("get", 20, 5, 10, 1, 0.5, 40, 17)]
    found.scale = [Point(axis, 1, "get", 100, 90, 110, 3, 40, 20) for axis in ("rows", "connections", "workers")]
    return found


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    before = run(100, 110)
    assert results.read(results.write(before, tmp_path)) == before


def test_the_report_has_medians_shares_and_plots(tmp_path: Path) -> None:
    text = report.write(run(100, 130, 110), tmp_path).read_text()
    assert "| get | service | 110 | 100 to 130 |  | 0.50 |" in text
    assert "| get | Go + pgx | 220 | 200 to 260 |  | 1.00 |" in text
    assert "| get | 20.0 | 5.0 | 10.0 | 1.0 | 0.5 | 3.5 | 40.0 | 17.0 |" in text
    for plot in ("peak", "stages", "scale"):
        assert f"({plot}.svg)" in text
        assert (tmp_path / f"{plot}.svg").read_text().startswith("<?xml")
    assert "latency" not in text


def test_two_runs_side_by_side_tell_change_from_noise() -> None:
    shown = compared(run(100, 110, 120), run(115, 125, 135)).rows
    assert shown[0][:4] == ["get", "service", "110 → 125", "≈ +14 %"]
    shown = compared(run(100, 110, 120), run(200, 220, 240)).rows
    assert shown[0][:4] == ["get", "service", "110 → 220", "+100 %"]
    shown = compared(run(200, 220, 240), run(100, 110, 120)).rows
    assert shown[0][:4] == ["get", "service", "220 → 110", "-50 %"]


def test_the_report_command_puts_another_run_beside(tmp_path: Path) -> None:
    for name, rates in (("old", (100.0, 110.0)), ("new", (300.0, 310.0))):
        (tmp_path / name).mkdir()
        results.write(run(*rates), tmp_path / name)
    done = CliRunner().invoke(cli, ["report", f"{tmp_path}/new/run.json", "--compare", f"{tmp_path}/old/run.json"])
    assert done.exit_code == 0, done.output
    assert "105 → 305" in done.output


def test_writes_a_commit_are_in_the_report(tmp_path: Path) -> None:
    text = report.write(run(100, 110), tmp_path).read_text()
    assert "| all MB | writes a commit |" in text
    assert "| 100 | 7.5 |" in text


def test_the_flood_and_the_remote_database_are_in_the_report(tmp_path: Path) -> None:
    found = run(100)
    found.flood = [Flood(1000, 2.0, 2.5, 3.0, {"503": 4}, 9000, 50)]
    wait = [
        Wait(SERVICE, name, Latency(1, 2 * n, 3), Latency(4, 5 * n, 6), 700) for n, name in ((1, "none"), (2, "slow"))
    ]
    found.remote = Remote([sample(SERVICE, 100), sample(RUST, 200), sample(GO, 50)], wait)
    text = report.write(found, tmp_path).read_text()
    assert "| 1000 | gets | 9,000 | 50 | 2.0 | 2.5 | 3.0 | 1.50 | 4 |" in text
    assert "| get | service | 100 | 100 to 100 | 0.50 | 2.00 | 1.0 | 3.0 | 50 | 7.5 |" in text
    assert "| service | slow | 1.0 | 4.0 | 2.00 | 4.0 | 10.0 | 2.00 | 700 |" in text
    assert results.read(results.write(found, tmp_path)) == found


@pytest.mark.parametrize("text", ["", "[]", '{"made": 1}'])
@pytest.mark.parametrize("command", [["report"], ["all", "--compare"]])
def test_a_file_that_is_no_run_is_refused_at_once(text: str, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(text)
    done = CliRunner().invoke(cli, [*command, f"{tmp_path}/run.json"])
    assert done.exit_code == 2
    assert "is no run of this harness" in done.output


@pytest.mark.parametrize("option", ["--seconds", "--tasks", "--url"])
def test_options_before_a_command_are_not_dropped(option: str) -> None:
    done = CliRunner().invoke(cli, [option, "5", "compare"])
    assert done.exit_code == 2
    assert f"{option}: options come after a command" in done.output


def test_without_a_command_everything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[Options] = []
    monkeypatch.setattr(measurements, "everything", lambda bench: ran.append(bench.options))
    assert CliRunner().invoke(cli, []).exit_code == 0
    assert CliRunner().invoke(cli, ["all", "--seconds", "5"]).exit_code == 0
    assert ran == [DEFAULTS, msgspec.structs.replace(DEFAULTS, seconds=5.0)]


def test_a_run_that_fails_keeps_what_it_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(bench: Bench) -> None:
        bench.run.closed_loop.append(sample(SERVICE, 100))
        raise RuntimeError("a peer is gone")

    monkeypatch.setattr(measurements, "everything", fail)
    done = CliRunner().invoke(cli, ["all", "--results", str(tmp_path)])
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == "Error: a peer is gone"
    [folder] = tmp_path.iterdir()
    found = results.read(folder / "run.json")
    assert found.failure == "a peer is gone"
    assert found.closed_loop == [sample(SERVICE, 100)]
    assert "failed, so this is what it measured before: a peer is gone" in (folder / "report.md").read_text()


@pytest.mark.parametrize("module", ["hdrh", "matplotlib", "psutil"])
def test_a_missing_extra_is_one_sentence(module: str) -> None:
    """Also for --help."""
    absent = f"import runpy, sys; sys.modules[{module!r}] = None; sys.argv = ['x', '--help']"
    done = subprocess.run(
        [sys.executable, "-c", f"{absent}; runpy.run_module('tests.load', run_name='__main__')"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"python -m tests.load needs {module}, which the extra `load` installs: pip install -e '.[load]'"
    ]


def test_a_command_says_what_it_is_doing() -> None:
    with Bench(Options(2, 10, 1, 1, 1, 2, 1, Path(), None)) as bench, CliRunner().isolation() as (_, stderr, _):
        bench.database()
        said = stderr.getvalue().decode()
    for line in ("starting PostgreSQL", "applying the migrations", "loading 10 tasks of 2 users"):
        assert line in said


def test_every_command_is_in_the_readme() -> None:
    text = (Path(__file__).parent / "README.md").read_text()
    missing = [name for name in cli.commands if not re.search(rf"^\| `{name}[ `]", text, re.MULTILINE)]
    assert missing == []
