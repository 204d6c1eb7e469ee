"""The examples of README.md and service/tasks/README.md: each command, run again, prints what the page shows.

Times, IDs of requests and tags of pages differ from run to run. TASKS_TEST_WRITE=1 writes the new output to the pages.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.marks import own_protocol
from tests.support.processes import ROOT, RunningService, wait_ready

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHOWN_URL = "http://127.0.0.1:8000"
VARYING = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "(time)"),
    (re.compile(r"(?m)^date: .*$"), "date: (time)"),
    (re.compile(r"(?m)^x-request-id: .*$"), "x-request-id: (id)"),
    (re.compile(r'W/"[0-9a-f]+"'), 'W/"(tag)"'),
]


def rerun(block: str, url: str, folder: Path) -> str:
    """The block with what its commands print now. One shell runs them all, so that variables last."""
    commands = re.findall(r"^\$ (.*)$", block, re.MULTILINE)
    script = "\n".join(
        f"{command.replace(SHOWN_URL, url).replace('curl', 'curl -s')}\necho '\x01'" for command in commands
    )
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, cwd=folder, check=True)
    printed = [text.replace("\r\n", "\n").strip("\n") for text in done.stdout.split("\x01\n")]
    shown = (
        f"$ {command}\n{text}" if text else f"$ {command}" for command, text in zip(commands, printed, strict=False)
    )
    return "\n\n".join(shown).replace("\n\n$ curl -so", "\n$ curl -so") + "\n"


def same(text: str) -> str:
    for pattern, placeholder in VARYING:
        text = pattern.sub(placeholder, text)
    return text


@own_protocol  # the order of a response's headers
@pytest.mark.parametrize("name", ["README.md", "service/tasks/README.md"])
def test_each_command_prints_what_the_page_shows(name: str, clone: Callable[[], str], tmp_path: Path) -> None:
    path = ROOT / name
    page = path.read_text()
    with RunningService(tmp_path, DATABASE_URL=clone(), AUTH_MODE="none") as service:
        wait_ready(service.url)
        again = BLOCK.sub(lambda match: f"```console\n{rerun(match[1], service.url, tmp_path)}```", page)
    if "TASKS_TEST_WRITE" in os.environ:
        path.write_text(again)
    assert same(again) == same(path.read_text())
