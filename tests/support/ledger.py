"""Clients that keep a ledger: what they were promised has to be found in the database afterwards, and nothing twice."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg

from tests.support.http import TIMEOUT_S, AsyncClient, ConnectionLost, Response
from tests.support.waiting import until

PAUSE_S = 0.02  # after a 503: Retry-After says a second, which would leave the tests little to see


class Load:
    """Clients that each create a task, read one that they were promised, and begin again. Each is another user.

    `surprises` holds every answer that a client must never see; `statuses` counts all. A create that was not answered,
    or answered by 503 or 504, may have happened or not.
    """

    def __init__(self, url: str, clients: int) -> None:
        self.promised: dict[str, int] = {}  # by title, which no other task has: its id
        self.open: set[str] = set()  # titles of creates that were sent and not acknowledged
        self.statuses: Counter[int] = Counter()
        self.surprises: list[str] = []
        self.cut = 0  # requests whose connection ended before their answer
        self.untaken: set[str] = set()  # titles and paths of those whose connection had never answered anything
        self.refused = 0  # connections that could not be made
        self.slowest_s = 0.0
        self._url = url
        self._clients = clients
        self._stop = False
        self._goes = asyncio.Event()
        self._goes.set()
        self._busy = 0

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Every client finishes what it is about."""
        self._stop = True
        self.go_on()
        await asyncio.gather(*self._tasks)

    async def pause(self) -> None:
        """Every client finishes what it is about, and waits."""
        self._goes.clear()
        await self.until(lambda: not self._busy)

    def go_on(self) -> None:
        self._goes.set()

    async def more(self, promises: int, within_s: float = 10.0) -> None:
        """Returns when so many more creates were acknowledged."""
        enough = len(self.promised) + promises
        await self.until(lambda: len(self.promised) >= enough, within_s)

    async def until(self, condition: Callable[[], bool], within_s: float = 10.0) -> None:
        state = f"{len(self.promised)} promises before"
        await until(condition, within_s, lambda: (state, len(self.promised), self.statuses, self.surprises[:3]))

    def check(self, database_url: str) -> set[str]:
        """The books balance: nobody saw what they must not see, every promise was kept, nothing was done twice.

        Gives the titles that are there.
        """
        assert not self.surprises, self.surprises[:5]
        with psycopg.connect(database_url) as connection:
            rows = connection.execute("SELECT title, id FROM tasks WHERE user_id LIKE 'load-%'").fetchall()
        found = dict(rows)
        assert len(found) == len(rows), "a create was done twice"
        lost = {title for title, task_id in self.promised.items() if found.get(title) != task_id}
        assert not lost, f"{len(lost)} acknowledged creates are not there"
        assert found.keys() - self.promised.keys() <= self.open, "there is what nobody asked for"
        return set(found)

    async def _client(self, number: int) -> None:
        client, path = AsyncClient(self._url), f"/api/load-{number}/tasks"
        n = 0
        while True:
            await self._goes.wait()
            if self._stop:
                break
            self._busy += 1
            n += 1
            await self._create_and_read(client, path, f"{number}:{n}")
            self._busy -= 1
        client.close()

    async def _create_and_read(self, client: AsyncClient, path: str, title: str) -> None:
        self.open.add(title)
        answer = await self._ask(client, "POST", path, {"title": title}, expected=201)
        if answer is None or answer.status != 201:
            return
        self.open.discard(title)
        task_id = self.promised[title] = answer.json()["id"]
        answer = await self._ask(client, "GET", f"{path}/{task_id}", None, expected=200)
        if answer is not None and answer.status == 200 and answer.json()["title"] != title:
            self.surprises.append(f"somebody else's answer: {answer.body!r} for {title}")

    async def _ask(self, client: AsyncClient, method: str, path: str, body: Any, *, expected: int) -> Response | None:
        begin = time.monotonic()
        try:
            answer = await client.send(method, path, body)
        except TimeoutError:
            self.surprises.append(f"{method} {path}: no answer in {TIMEOUT_S} s")
            client.close()
            return None
        except ConnectionLost as cut:
            if cut.fresh:
                self.untaken.add(path if body is None else body["title"])
            else:
                self.cut += 1
            await asyncio.sleep(PAUSE_S)
            return None
        except OSError:
            self.refused += 1
            await asyncio.sleep(PAUSE_S)
            return None
        self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
        self.statuses[answer.status] += 1
        if answer.status in (503, 504):
            if set(answer.json()) != {"error"} or (answer.status == 503 and "retry-after" not in answer.headers):
                self.surprises.append(f"{method} {path}: {answer}")
            await asyncio.sleep(PAUSE_S)
        elif answer.status != expected:
            self.surprises.append(f"{method} {path}: {answer}")
        return answer
