"""deploy/tasks-service.service and .socket: units that systemd reads, hardened, with time for a stop."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import describe
from tests.support.processes import ROOT

UNIT = ROOT / "deploy" / "tasks-service.service"
EXPOSURE = 1.2  # of 10; what is left is the network, which the service needs


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a command that exists on this machine."""
    command = Path(sys.executable).with_name("tasks-service")
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/opt/tasks-service/bin/tasks-service", str(command)))
    path.with_suffix(".socket").write_text(UNIT.with_suffix(".socket").read_text())
    return path


@pytest.mark.debian
def test_systemd_finds_no_mistake_in_the_units(unit: Path) -> None:
    for suffix in (".service", ".socket"):
        done = subprocess.run(["systemd-analyze", "verify", unit.with_suffix(suffix)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.debian
def test_the_unit_is_hardened(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={round(EXPOSURE * 10)}", unit],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]


def test_systemd_waits_longer_than_a_stop_takes() -> None:
    found = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    defaults = {name: default for name, default, *_ in describe()}
    assert int(found[1]) > int(defaults["DRAIN_S"]) + int(defaults["SHUTDOWN_GRACE_S"])
