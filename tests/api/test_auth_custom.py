"""An authenticator that is not the service's own: the example of service/auth/README.md, served as it says."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.support.http import Client
from tests.support.processes import ROOT, wait_ready

TASKS = "/api/user-1/tasks"
USER_1 = {"X-API-Key": "5b6d9c1e"}
USER_2 = {"X-API-Key": "a04f77d2"}


@pytest.fixture(scope="module")
def client(clone: Callable[[], str]) -> Iterator[Client]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-m", "uvicorn", "tests.api.auth_example:app", "--fd", str(listener.fileno())]
        settings = {"DATABASE_URL": clone(), "AUTH_MODE": "none", "PYTHONPATH": str(ROOT)}
        serving = subprocess.Popen(
            command, env=os.environ | settings, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL
        )
    try:
        wait_ready(url)
        with Client(url) as client:
            yield client
    finally:
        serving.terminate()
        serving.wait(30)


def test_it_says_who_calls(client: Client) -> None:
    created = client.send("POST", TASKS, body=b'{"title": "Buy milk"}', headers=USER_1)
    assert (created.status, created.json()["user_id"]) == (201, "user-1")
    assert client.send("GET", TASKS, headers=USER_1).json() == [created.json()]


def test_the_service_denies_other_users_by_itself(client: Client) -> None:
    answer = client.send("GET", TASKS, headers=USER_2)
    assert (answer.status, answer.json()) == (403, {"error": "Access denied"})


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "guessed"}], ids=["no key", "another key"])
def test_its_refusal_is_the_answer(headers: dict[str, str], client: Client) -> None:
    answer = client.send("GET", TASKS, headers=headers)
    assert (answer.status, answer.json()) == (401, {"error": "Authentication required"})
    assert answer.headers["www-authenticate"] == "Bearer"


def test_the_example_in_the_readme_is_the_one_served_here() -> None:
    example = (ROOT / "tests" / "api" / "auth_example.py").read_text()
    assert f"```python\n{example}```" in (ROOT / "service" / "auth" / "README.md").read_text()
