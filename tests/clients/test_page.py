"""service/tasks/clients: its page works word by word; its clients lose nothing and make no change twice."""

import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import cycle
from pathlib import Path

import httpx
import pytest

from tests.clients.conftest import CLIENTS, HERE, MODULES, PAGE, caller, run
from tests.support.lossy_network import Fault, Proxy, cut, delay, eat, lose, reject
from tests.support.processes import RunningService

pytestmark = pytest.mark.clients

HTML = "<h1>Bad Gateway</h1>"
busy = reject("busy", "429 Too Many Requests", lambda: "1")
away = reject("away", "503 Service Unavailable", lambda: "1", '{"error": "Service is temporarily unavailable"}')
away_for_long = reject("away for long", "503 Service Unavailable", lambda: "3600")
away_until = reject(
    "away until",
    "503 Service Unavailable",
    lambda: format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True),
)
page = reject("page", "502 Bad Gateway", None, HTML)
nothing = reject("nothing", "502 Bad Gateway")

FAULTS = (eat, lose, busy, cut, away, away_until, page, delay)
# As programs/retries/limits.* go through them; None is a request that meets none.
LIMITS = (
    *(None, eat, eat, None, eat, None),  # create, create without a key, flip, get, set
    *(busy, None, away, away_for_long),
    *(page,) * 6,
    *(nothing,) * 6,
    *(eat,) * 6,
    *(None, None),
)


class Plan:
    """Says what goes wrong with each request, and when each came."""

    def __init__(self, faults: Iterable[Fault | None]) -> None:
        self._faults = iter(faults)
        self.made: list[tuple[Fault | None, float]] = []

    def __call__(self) -> Fault | None:
        self.made.append((next(self._faults), time.monotonic()))
        return self.made[-1][0]

    def shortest_wait_s(self, fault: Fault) -> float:
        """Between a request that met this fault and the next one."""
        pairs = zip(self.made, self.made[1:], strict=False)
        return min(after - before for (met, before), (_, after) in pairs if met is fault)


def every_first_try() -> Iterator[Fault | None]:
    for fault in cycle(FAULTS):
        yield fault
        yield None


def block(language: str, beginning: str = "") -> str:
    """The page's code block in this language that begins so."""
    (found,) = re.findall(rf"^```{language}\n({re.escape(beginning)}.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return found


def with_short_timeout(name: str) -> str:
    """A client of the page that gives a try up after a second."""
    text = (CLIENTS / name).read_text()
    short = re.sub(r"^(const TIMEOUT_MS = 1)5(_000;)|^(TIMEOUT_S = 1)5", r"\1\2\3", text, flags=re.MULTILINE)
    assert short != text
    return short


@pytest.fixture(scope="session")
def typescript(service: RunningService, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a person who followed the page. Node's packages are there already."""
    assert MODULES.exists(), "npm install --prefix tests/clients --no-package-lock"
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(MODULES)
    commands = re.sub(r"^npm install .*\n", "", block("sh", "npm init"), flags=re.MULTILINE)
    run(folder, "bash", "-eu", "-c", commands.replace("http://127.0.0.1:8000", service.url))
    shutil.copy(CLIENTS / "tasks.ts", folder)
    (folder / "main.ts").write_text(block("ts", "// main.ts"))
    return folder


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python")
    shutil.copy(CLIENTS / "tasks.py", folder)
    (folder / "main.py").write_text(block("python", "# main.py"))
    return folder


def test_typescript_is_typed_with_the_settings_that_tsc_makes(typescript: Path) -> None:
    assert '"exactOptionalPropertyTypes": true' in (typescript / "tsconfig.json").read_text()
    run(typescript, "tsc", "--noEmit")
    run(typescript, "tsc", "--noEmit", "--exactOptionalPropertyTypes", "false")


def test_python_is_typed(python: Path) -> None:
    run(python, sys.executable, "-m", "mypy", "--strict", "tasks.py", "main.py")


@pytest.mark.parametrize("language", ["typescript", "python"])
def test_the_example_runs(request: pytest.FixtureRequest, service: RunningService, user: str, language: str) -> None:
    folder: Path = request.getfixturevalue(language)
    name, command = ("main.ts", ["tsx"]) if language == "typescript" else ("main.py", [sys.executable, "-W", "error"])
    example = (folder / name).read_text().replace("http://127.0.0.1:8000", service.url).replace("user-1", user)
    (folder / f"own_{name}").write_text(example)
    said = run(folder, *command, f"own_{name}")
    (task,) = httpx.get(f"{service.url}/api/{user}/tasks").json()
    assert (task["title"], task["completed"], task["version"]) == ("Buy milk", True, 2)
    assert said.endswith(f"{task['id']} Buy milk\n")
    assert re.search(r"\] (undefined|None)\n", said)


Drive = Callable[[str, Plan], list[bytes]]


@pytest.fixture(params=["typescript", "python"])
def drive(request: pytest.FixtureRequest, serving: RunningService) -> Drive:
    """Runs a program of programs/retries in a planned network; returns what the service responded."""
    folder: Path = request.getfixturevalue(request.param)
    suffix, command = (
        ("ts", ["tsx", "--expose-gc"]) if request.param == "typescript" else ("py", [sys.executable, "-W", "error"])
    )

    def run_program(name: str, plan: Plan) -> list[bytes]:
        away = folder / name
        away.mkdir(exist_ok=True)
        for file in folder.iterdir():
            if file.name in ("node_modules", "package.json", "schema.ts", "tsconfig.json"):
                (away / file.name).symlink_to(file)
        (away / f"tasks.{suffix}").write_text(with_short_timeout(f"tasks.{suffix}"))
        shutil.copy(HERE / "programs" / "retries" / f"{name}.{suffix}", away)
        if suffix == "ts":
            (away / "tsconfig.json").unlink()
            shutil.copy(folder / "tsconfig.json", away)
            run(away, "tsc", "--noEmit", "--types", "node")
        else:
            run(away, sys.executable, "-m", "mypy", "--strict", f"{name}.py")
        with Proxy(serving.url, plan) as proxy:
            run(away, *command, f"{name}.{suffix}", proxy.url, *caller())
        return proxy.answers

    return run_program


def test_each_change_is_made_once_and_each_wait_is_kept(drive: Drive) -> None:
    plan = Plan(every_first_try())
    answers = drive("faults", plan)
    assert {fault for fault, _ in plan.made} == {*FAULTS, None}
    for fault in (busy, away, away_until):
        assert plan.shortest_wait_s(fault) >= 1
    statuses = [int(answer[9:12]) for answer in answers]
    # An own update's retry, and unchanged pages: the programs assert what becomes of them.
    assert statuses.count(412) > 1
    assert statuses.count(304) >= 8
    assert set(statuses) == {200, 201, 304, 400, 412}


def test_what_could_be_a_second_change_is_not_retried(drive: Drive) -> None:
    plan = Plan(LIMITS)
    drive("limits", plan)
    assert len(plan.made) == len(LIMITS)


def test_curl(tmp_path: Path, service: RunningService, user: str) -> None:
    """Against a service that needs no token, as on the page. Three pages, of 500 each."""
    tasks = f"{service.url}/api/{user}/tasks"
    for _ in range(2):
        httpx.post(f"{tasks}/batch", json=[{"title": "x"}] * 600).raise_for_status()
    faults = (eat, None, lose, None, cut, None, busy, None, away_until, page, None, None)
    plan = Plan(faults)
    with Proxy(service.url, plan) as proxy:
        script = block("sh", "tasks=").replace("http://127.0.0.1:8000", proxy.url).replace("user-1", user)
        poll = script.splitlines()[-1]
        said = run(tmp_path, "bash", "-eu", "-c", f"{script}\n{poll}")
    assert len(plan.made) == len(faults)
    assert len(httpx.get(tasks).json()) == 1201
    assert said.count('"id":') == 1201
    assert "]200\n304\n" in said


def test_curl_does_not_retry_what_gets_the_same_response(tmp_path: Path, service: RunningService, user: str) -> None:
    plan = Plan([None])
    with Proxy(service.url, plan) as proxy:
        script = block("sh", "tasks=").replace("http://127.0.0.1:8000", proxy.url).replace("user-1", user)
        with pytest.raises(AssertionError, match="Title cannot be empty"):
            run(tmp_path, "bash", "-eu", "-c", script.replace("Buy milk", " "))
    assert len(plan.made) == 1
