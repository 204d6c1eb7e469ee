"""The examples of README.md and service/tasks/README.md: each command, run again, prints what the page shows.

TASKS_TEST_WRITE=1 writes the new output to the pages.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.examples import BLOCK, WRITE, rerun, same
from tests.support.marks import own_protocol
from tests.support.processes import ROOT, RunningService, wait_ready


@pytest.mark.debian  # curl
@own_protocol  # the order of a response's headers
@pytest.mark.parametrize("name", ["README.md", "service/tasks/README.md"])
def test_each_command_prints_what_the_page_shows(name: str, clone: Callable[[], str], tmp_path: Path) -> None:
    path = ROOT / name
    page = path.read_text()
    with RunningService(tmp_path, DATABASE_URL=clone(), AUTH_MODE="none") as service:
        wait_ready(service.url)
        replaced = [("curl ", "curl -s "), ("http://127.0.0.1:8000", service.url)]
        again = BLOCK.sub(lambda match: f"```console\n{rerun(match[1], tmp_path, replaced)}```", page)
    if WRITE:
        path.write_text(again)
    assert same(again) == same(path.read_text())
