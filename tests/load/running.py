"""A service that somebody else runs, as a target: tasks of one user are made over HTTP, and taken away afterwards.

Only tasks whose title says that the harness made them are ever deleted.
"""

import base64
import http.client
import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import local
from urllib.parse import quote, urlsplit

from rich.progress import Progress

from tests.load.aim import Aim
from tests.load.targets import Target

TITLE = "Made under load"  # so begin the titles of all tasks that the harness makes, closed.lua's and aim.py's too
BATCH = 1000
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Client:
    """A user's tasks over HTTP. One connection a thread."""

    def __init__(self, url: str, token: str, user: str) -> None:
        self._address = urlsplit(url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._path = f"/api/{quote(user, safe='')}/tasks"
        self._local = local()

    def ask(self, method: str, rest: str, body: object = None) -> object:
        """The answer's JSON. Raises RuntimeError for an answer that is no success."""
        if not hasattr(self._local, "connection"):
            kind = http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
            self._local.connection = kind(self._address.hostname or "", self._address.port, timeout=30)
        connection = self._local.connection
        data = None if body is None else json.dumps(body)
        connection.request(method, self._path + rest, data, self._headers | {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(
                f"{method} {self._path}{rest} was answered {answer.status}: {text[:200].decode(errors='replace')}"
            )
        return json.loads(text) if text else None

    def made(self) -> list[int]:
        """The tasks that the harness has made."""
        tasks = self.ask("GET", "")
        assert isinstance(tasks, list)
        return [task["id"] for task in tasks if task["title"].startswith(TITLE)]


def user_of(token: str) -> str:
    """Whom a token names; whether it holds is the service's to say."""
    claims = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"])


@contextmanager
def using(url: str, token: str, user: str, tasks: int, progress: Progress) -> Generator[tuple[Target, Aim]]:
    """The service at `url` with `tasks` tasks of `user` in it, which are deleted afterwards."""
    client = Client(url, token, user)
    step = progress.add_task(f"{tasks:,} tasks of {user}", total=tasks)
    with TemporaryDirectory() as folder:
        try:
            for first in range(0, tasks, BATCH):
                count = min(BATCH, tasks - first)
                new = [{"title": f"{TITLE} {first + n}", "description": "Before noon, please"} for n in range(count)]
                client.ask("POST", "/batch", new)
                progress.update(step, advance=count)
            ids = Path(folder) / "ids"
            ids.write_text("\n".join(map(str, client.made())))
            yield Target("service", url, None), Aim(tasks=tasks, token=token, user=quote(user, safe=""), ids=str(ids))
        finally:
            left = client.made()
            step = progress.add_task("taking them away", total=len(left))
            with ThreadPoolExecutor(8) as pool:
                for _ in pool.map(lambda task: client.ask("DELETE", f"/{task}"), left):
                    progress.update(step, advance=1)
