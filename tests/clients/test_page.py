"""CLIENTS.md: its programs create each task once and read every page, though the network loses messages."""

import re
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import httpx
import pytest

from tests.clients.conftest import PAGE, caller, run
from tests.support.lossy_network import Fault, Proxy, cut, eat, lose
from tests.support.processes import RunningService

pytestmark = pytest.mark.clients

FAULTS = (eat, lose, None, cut, None, None, None)


def block(language: str) -> str:
    """The last code block in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)[-1]


def faults() -> Callable[[], Fault | None]:
    """Each kind of fault again and again, never one message twice."""
    numbers = count()
    return lambda: FAULTS[next(numbers) % len(FAULTS)]


@pytest.fixture
def lossy(serving: RunningService) -> Iterator[Proxy]:
    """A network before the service; each kind of fault must have happened when the test ends."""
    with Proxy(serving.url, faults()) as proxy:
        yield proxy
    assert set(proxy.faults) == {"lose", "eat", "cut"}


def test_typescript(compiled: Path, lossy: Proxy) -> None:
    run(compiled, "node", "js/page.js", lossy.url, *caller())


def test_python(generated: Path, lossy: Proxy) -> None:
    run(generated, sys.executable, "-W", "error", "page.py", lossy.url, *caller())


def test_curl(tmp_path: Path, service: RunningService, user: str) -> None:
    """Against a service that needs no token, as on the page. Three pages, of 500 each."""
    tasks = f"{service.url}/api/{user}/tasks"
    for _ in range(2):
        httpx.post(f"{tasks}/batch", json=[{"title": "x"}] * 600).raise_for_status()
    with Proxy(service.url, faults()) as proxy:
        script = block("sh").replace("http://127.0.0.1:8000", proxy.url).replace("user-1", user)
        pages = run(tmp_path, "bash", "-eu", "-c", script)
    assert set(proxy.faults) == {"lose", "eat", "cut"}
    assert len(httpx.get(tasks).json()) == 1201
    assert pages.count('"id":') == 1201
