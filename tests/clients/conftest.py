"""Node's packages, a folder where generators can work, and the service that their clients talk to."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.support.processes import ROOT, RunningService, wait_ready
from tests.support.tokens import SECRET, SHARED, claims, token

HERE = Path(__file__).parent
CLIENTS = ROOT / "service" / "tasks" / "clients"
PAGE = (CLIENTS / "README.md").read_text()
MODULES = HERE / "node_modules"
ENVIRONMENT: Mapping[str, str] = {
    "PATH": f"{MODULES / '.bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    "HOME": os.environ["HOME"],
    "REDOCLY_TELEMETRY": "off",
    "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true",
    "CI": "true",
    "NO_COLOR": "1",
}
COMMANDS = re.findall(r"^\|[^|]*\|[^|]*\| `([^`]+)` \|$", PAGE, re.MULTILINE)
VERSIONS: Mapping[str, str] = json.loads((HERE / "package.json").read_text())["dependencies"]
# Hey API's client needs this resolution, and no exactOptionalPropertyTypes.
TSCONFIG = """\
{"compilerOptions": {"strict": true, "noUncheckedIndexedAccess": true, "target": "es2022", "module": "es2022",
 "lib": ["es2022", "dom", "dom.iterable"], "moduleResolution": "bundler", "types": ["node"], "skipLibCheck": true,
 "outDir": "js"}}
"""


def run(folder: Path, *command: str, timeout_s: float = 120) -> str:
    """What the command writes. Fails with it where the command does."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def serving(clone: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that demands tokens."""
    settings = {"DATABASE_URL": clone(), "AUTH_MODE": "jwt", "AUTH_JWT_SECRET": SECRET}
    with RunningService(tmp_path_factory.mktemp("serving"), **settings) as running:
        wait_ready(running.url)
        yield running


@pytest.fixture(scope="session")
def workshop(serving: RunningService, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with openapi.json, Node's packages and TypeScript's settings."""
    assert MODULES.exists(), "npm install --prefix tests/clients --no-package-lock"
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "openapi.json").write_bytes(httpx.get(f"{serving.url}/openapi.json").content)
    (folder / "node_modules").symlink_to(MODULES)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "tsconfig.json").write_text(TSCONFIG)
    return folder


def installed(command: str) -> list[str]:
    """The words of a command of the page; what npx would fetch is the program that npm installed here."""
    words = shlex.split(command)
    if words[0] == "npx":
        package, _, version = words[1].rpartition("@")
        assert VERSIONS[package] == version, f"{command}: package.json has {VERSIONS[package]}"
        words[:2] = [package.rpartition("/")[2]]
    return words


@pytest.fixture(scope="session")
def generated(workshop: Path) -> Path:
    """The folder in which every generator of the page has run, with the programs that use what they made."""
    for command in COMMANDS:
        said = run(workshop, *installed(command))
        assert not re.search(r"(?i)\bwarning\b.*(parsing|endpoint|schema)", said), said
    for program in (HERE / "programs").iterdir():
        if program.is_file():
            shutil.copy(program, workshop)
    return workshop


@pytest.fixture(scope="session")
def compiled(generated: Path) -> Path:
    """The folder with TypeScript checked and made JavaScript."""
    run(generated, "tsc", "--project", ".")
    return generated


def caller() -> tuple[str, str]:
    """A token and its user."""
    user = f"user-{uuid4()}"
    return token(SHARED, claims(sub=user)), user
