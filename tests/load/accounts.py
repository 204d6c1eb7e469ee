"""A service that somebody else runs, as a target: tasks of one user are made over HTTP, and taken away afterwards.

Only tasks whose title says that the harness made them are ever deleted.
"""

import base64
import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import httpx
from rich.progress import Progress

from tests.load.targets import Target
from tests.load.workload import Workload

TITLE = "Made under load"  # how the titles of all tasks of the harness begin
CREATE_MANY = 1000
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Tasks:
    """A user's tasks over HTTP. Raises httpx.HTTPError for an answer that is no success."""

    def __init__(self, client: httpx.Client, user: str) -> None:
        self._client = client
        self._path = f"/api/{quote(user, safe='')}/tasks"

    def create(self, numbers: range) -> None:
        new = [{"title": f"{TITLE} {number}", "description": "Before noon, please"} for number in numbers]
        self._client.post(f"{self._path}/batch", json=new).raise_for_status()

    def made(self) -> list[int]:
        """Those that the harness has made."""
        tasks = self._client.get(self._path).raise_for_status().json()
        return [task["id"] for task in tasks if task["title"].startswith(TITLE)]

    def delete(self, task_id: int) -> None:
        self._client.delete(f"{self._path}/{task_id}").raise_for_status()


def user_of(token: str) -> str:
    """Whom a token names; whether it holds is the service's to say."""
    claims = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"])


@contextmanager
def using(url: str, token: str, user: str, tasks: int, progress: Progress) -> Generator[tuple[Target, Workload]]:
    """The service at `url` with `tasks` tasks of `user` in it, which are deleted afterwards."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client, TemporaryDirectory() as folder:
        mine = Tasks(client, user)
        try:
            step = progress.add_task(f"{tasks:,} tasks of {user}", total=tasks)
            for first in range(0, tasks, CREATE_MANY):
                mine.create(range(first, min(first + CREATE_MANY, tasks)))
                progress.update(step, completed=first + CREATE_MANY)
            ids = Path(folder) / "ids"
            ids.write_text("\n".join(map(str, mine.made())))
            yield (
                Target("service", url, None),
                Workload(tasks=tasks, token=token, user=quote(user, safe=""), ids=str(ids)),
            )
        finally:
            left = mine.made()
            step = progress.add_task("taking them away", total=len(left))
            with ThreadPoolExecutor(8) as pool:
                for _ in pool.map(mine.delete, left):
                    progress.update(step, advance=1)
