"""Clients that keep a ledger: what they were promised has to be found in the database afterwards, and nothing twice.

They speak HTTP by hand: a client library costs more than the service, and hides what became of a connection.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg

HANGS_S = 15.0  # the request deadline, and half as much again
PAUSE_S = 0.02  # after a 503: Retry-After says a second, which would leave the tests little to see


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Cut(Exception):
    """The connection ended before the answer did. `fresh`: it had answered nothing yet: maybe nobody had taken it."""

    def __init__(self, *, fresh: bool) -> None:
        super().__init__()
        self.fresh = fresh


class Client:
    """One connection at a time, kept alive, and made anew where it has ended."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._writer: asyncio.StreamWriter | None = None

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        within_s: float = HANGS_S,
    ) -> Response:
        """Raises Cut, OSError where there is no connection to be had, TimeoutError."""
        async with asyncio.timeout(within_s):
            fresh = self._writer is None
            if self._writer is None:
                self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
            sent = b"" if body is None else json.dumps(body).encode()
            lines = {"Host": "tasks.example.com", "Content-Length": str(len(sent)), **(headers or {})}
            head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            self._writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + sent)
            try:
                answer = await self._read()
            except (asyncio.IncompleteReadError, ConnectionError):
                self.close()
                raise Cut(fresh=fresh) from None
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    async def _read(self) -> Response:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self._reader.readexactly(int(headers.get("content-length", 0)))
        return Response(int(first.split(" ")[1]), headers, body)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None


class Load:
    """Clients that each create a task, read one that they were promised, and begin again. Each is a user of its own.

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
        end = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < end, f"{len(self.promised)} promises, {self.statuses}, {self.surprises[:3]}"
            await asyncio.sleep(0.005)

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
        client, path = Client(self._url), f"/api/load-{number}/tasks"
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

    async def _create_and_read(self, client: Client, path: str, title: str) -> None:
        self.open.add(title)
        answer = await self._ask(client, "POST", path, {"title": title}, expected=201)
        if answer is None or answer.status != 201:
            return
        self.open.discard(title)
        task_id = self.promised[title] = answer.json()["id"]
        answer = await self._ask(client, "GET", f"{path}/{task_id}", None, expected=200)
        if answer is not None and answer.status == 200 and answer.json()["title"] != title:
            self.surprises.append(f"somebody else's answer: {answer.body!r} for {title}")

    async def _ask(self, client: Client, method: str, path: str, body: Any, *, expected: int) -> Response | None:
        begin = time.monotonic()
        try:
            answer = await client.ask(method, path, body)
        except TimeoutError:
            self.surprises.append(f"{method} {path}: no answer in {HANGS_S} s")
            client.close()
            return None
        except Cut as cut:
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


@asynccontextmanager
async def asking(url: str) -> AsyncGenerator[Client]:
    """A client of its own for one task."""
    client = Client(url)
    try:
        yield client
    finally:
        client.close()
