"""An authenticator that is not the service's own: README's example, served the way README says."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.api.auth_wire import Wire, tasks_of
from tests.conftest import wait_ready
from tests.support.processes import ROOT

USER_1 = {"x_api_key": "5b6d9c1e"}
USER_2 = {"x_api_key": "a04f77d2"}


@pytest.fixture(scope="module")
def wire(clone: Callable[[], str]) -> Iterator[Wire]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "uvicorn", "tests.api.auth_example:app", "--fd", str(listener.fileno())]
        settings = {"DATABASE_URL": clone(), "AUTH_MODE": "none", "PYTHONPATH": str(ROOT)}
        serving = subprocess.Popen(
            command, env=os.environ | settings, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL
        )
    try:
        wait_ready(url)
        with Wire(url) as wire:
            yield wire
    finally:
        serving.terminate()
        serving.wait(30)


def test_it_says_who_calls(wire: Wire) -> None:
    created = wire.send("POST", tasks_of("user-1"), body=b'{"title": "Buy milk"}', **USER_1)
    assert (created.status, created.json()["user_id"]) == (201, "user-1")
    assert wire.send("GET", tasks_of("user-1"), **USER_1).json() == [created.json()]


def test_the_service_denies_other_users_by_itself(wire: Wire) -> None:
    answer = wire.send("GET", tasks_of("user-1"), **USER_2)
    assert (answer.status, answer.json()) == (403, {"error": "Access denied"})


@pytest.mark.parametrize("headers", [{}, {"x_api_key": "guessed"}], ids=["no key", "another key"])
def test_its_refusal_is_the_answer(headers: dict[str, str], wire: Wire) -> None:
    answer = wire.send("GET", tasks_of("user-1"), **headers)
    assert (answer.status, answer.json()) == (401, {"error": "Authentication required"})
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_example_is_the_one_that_readme_shows() -> None:
    example = (ROOT / "tests" / "api" / "auth_example.py").read_text()
    assert f"```python\n{example}```" in (ROOT / "README.md").read_text()
