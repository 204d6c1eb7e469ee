"""The soak: a mixed load for minutes, a fault every half minute, and at the end a ledger in which every write is
accounted for, and no growth in memory or descriptors. `python -m tests.load soak`.

The faults are those of tests/faults, made on a PostgreSQL and a service of the soak's own.
"""

import asyncio
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psutil
import psycopg

from service.operations import embedded, migrate
from service.operations.embedded.temporary import temporary
from tests.support.databases import terminate
from tests.support.http import AsyncClient, ConnectionLost, Response
from tests.support.noisy_wire import NoisyWire
from tests.support.processes import RunningService, wait_ready
from tests.support.proxy import Proxy

CLIENTS = 24
PAUSE_S = 0.02  # between a client's requests: the soak is to last, not to saturate
AFTER_FAILURE_S = 0.1
SAMPLE_S = 1.0
AWAY_S = 2.0  # for which the database is away, or a row locked
BACK_S = 5.0  # within which writes go on after a fault
GROWTH = 1.15  # of the memory in the second half of the time over that in the first
SPARE_DESCRIPTORS = 12  # connections that come and go

# Bounds that let a stall of a few seconds show.
LIMITS = {"STATEMENT_TIMEOUT_MS": "1000", "REQUEST_DEADLINE_MS": "4000", "CONNECT_TIMEOUT_S": "2", "WORKERS": "2"}


class State(NamedTuple):
    """A task as its only writer knows it; None in its place: there is no such task."""

    description: str | None
    completed: bool


class Books:
    """One user's tasks, which no other client writes, and the states that each may have by the responses so far.

    A write that was answered leaves one possibility; one that was not leaves two, and its task is not touched again.
    """

    def __init__(self, user: str) -> None:
        self.user = user
        self.possible: dict[str, set[State | None]] = {}  # by title
        self.ids: dict[str, int] = {}  # of those that can be worked with

    def writes(self, title: str, state: State | None) -> None:
        """Notes that a write is sent."""
        self.possible[title] = self.possible.get(title, {None}) | {state}

    def in_doubt(self) -> int:
        """The tasks of which it is not known whether the last write was done."""
        return sum(len(states) > 1 for states in self.possible.values())


class Soak:
    """The clients, what they saw, and the fault that is being made."""

    def __init__(self, url: str, seed: int, noisy: Callable[[], bool]) -> None:
        self.books = [Books(f"soak-{number}") for number in range(CLIENTS)]
        self.statuses: Counter[int] = Counter()
        self.cut = 0
        self.surprises: list[str] = []
        self.acknowledged = 0  # writes
        self.retried = 0  # creates under a key that had to be sent again
        self._url = url
        self._noisy = noisy
        self._random = random.Random(seed)
        self._over = False

    async def run(self, faults: Callable[[], Awaitable[None]]) -> None:
        """For as long as the faults take."""
        clients = [asyncio.create_task(self._client(books)) for books in self.books]
        try:
            await faults()
        finally:
            self._over = True
            await asyncio.gather(*clients)

    async def _client(self, books: Books) -> None:
        client, path = AsyncClient(self._url), f"/api/{books.user}/tasks"
        number = 0
        while not self._over:
            number += 1
            await self._one(client, path, books, str(number))
            await asyncio.sleep(PAUSE_S)
        client.close()

    async def _one(self, client: AsyncClient, path: str, books: Books, number: str) -> None:
        draw = self._random.random()
        title = self._random.choice(list(books.ids)) if books.ids else ""
        if draw < 0.15 or not title:
            await self._create(client, path, books, number)
        elif draw < 0.25:
            await self._create_under_a_key(client, path, books, number)
        elif draw < 0.6:
            answer = await self._ask(client, "GET", f"{path}/{books.ids[title]}", 200)
            if answer and {_state(answer.json())} != books.possible[title]:
                self.surprises.append(f"{title} of {books.user} should be {books.possible[title]}: {answer.body!r}")
        elif draw < 0.7:
            answer = await self._ask(client, "GET", f"{path}?limit=50", 200)
            for task in answer.json() if answer else ():
                if _state(task) not in books.possible.get(task["title"], ()):
                    self.surprises.append(f"a list of {books.user} holds {task}")
        else:
            await self._change(client, path, books, title, number, draw)

    async def _create(self, client: AsyncClient, path: str, books: Books, title: str) -> None:
        books.writes(title, State(None, False))
        if answer := await self._ask(client, "POST", path, 201, {"title": title}):
            self._known(books, title, State(None, False), answer.json()["id"])

    async def _create_under_a_key(self, client: AsyncClient, path: str, books: Books, title: str) -> None:
        """Sent again until it is answered, which leaves no doubt."""
        books.writes(title, State(None, False))
        while True:
            answer = await self._ask(client, "POST", path, 201, {"title": title}, {"Idempotency-Key": title})
            if answer:
                self._known(books, title, State(None, False), answer.json()["id"])
                return
            if self.surprises:
                return
            self.retried += 1

    async def _change(self, client: AsyncClient, path: str, books: Books, title: str, number: str, draw: float) -> None:
        task_id = books.ids.pop(title)
        (before,) = books.possible[title]
        assert before is not None
        answer: Response | None
        after: State | None
        if draw < 0.85:
            after = State(number, before.completed)
            books.writes(title, after)
            answer = await self._ask(client, "PUT", f"{path}/{task_id}", 200, {"description": number})
        elif draw < 0.95:
            after = State(before.description, not before.completed)
            books.writes(title, after)
            sent = {"completed": after.completed}
            answer = await self._ask(client, "PATCH", f"{path}/{task_id}/complete", 200, sent)
        else:
            after = None
            books.writes(title, after)
            answer = await self._ask(client, "DELETE", f"{path}/{task_id}", 204)
        if answer:
            self._known(books, title, after, task_id)

    def _known(self, books: Books, title: str, state: State | None, task_id: int) -> None:
        self.acknowledged += 1
        books.possible[title] = {state}
        if state is not None:
            books.ids[title] = task_id

    async def _ask(
        self,
        client: AsyncClient,
        method: str,
        path: str,
        expected: int,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Response | None:
        """The answer, if it is the one expected."""
        try:
            answer = await client.send(method, path, body, headers)
        except TimeoutError:  # first: it is an OSError
            self.surprises.append(f"{method} {path}: no answer")
            client.close()
            return None
        except (ConnectionLost, OSError):
            self.cut += 1
            await asyncio.sleep(AFTER_FAILURE_S)
            return None
        self.statuses[answer.status] += 1
        if answer.status == expected:
            return answer
        # A foreign row is an internal error, and what else is in flight on its connection is in doubt.
        if answer.status not in ((500, 503, 504) if self._noisy() else (503, 504)):
            self.surprises.append(f"{method} {path}: {answer}")
        await asyncio.sleep(AFTER_FAILURE_S)
        return None


class Ground:
    """What the faults are made on: PostgreSQL, a proxy before it, the service behind that."""

    def __init__(self, cluster: embedded.Embedded, proxy: Proxy, service: RunningService) -> None:
        self.cluster = cluster
        self._proxy = proxy
        self.noisy = False  # the wire repeats, loses and swaps messages
        self.service = service

    def workers(self) -> list[psutil.Process]:
        """The service's workers, the oldest first."""
        children = psutil.Process(self.service.process.pid).children()
        with suppress(psutil.NoSuchProcess):
            children = [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]
        return sorted(children, key=lambda child: child.create_time())

    async def kill_postgres(self) -> None:
        await self._restart(signal.SIGKILL)

    async def restart_postgres(self) -> None:
        await self._restart(signal.SIGINT)

    async def _restart(self, number: int) -> None:
        assert self.cluster.pid is not None
        os.kill(self.cluster.pid, number)
        while self.cluster.pid is not None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(AWAY_S)
        await asyncio.to_thread(self.cluster.ensure_running)

    async def end_all_connections(self) -> None:
        with psycopg.connect(self.cluster.url, autocommit=True) as admin:
            terminate(admin)

    async def cut_all_connections(self) -> None:
        self._proxy.cut()

    async def strand_all_connections(self) -> None:
        self._proxy.strand()

    async def suspend(self) -> None:
        """Refused for a while, as by a compute that sleeps and has to wake."""
        self._proxy.refuses = True
        self._proxy.cut()
        await asyncio.sleep(AWAY_S)
        self._proxy.refuses = False

    async def lock_rows(self) -> None:
        """Those of a quarter of the users, longer than a statement may take."""
        async with await psycopg.AsyncConnection.connect(self.cluster.url) as other:
            await other.execute("SELECT FROM tasks WHERE user_id LIKE 'soak-1%' FOR UPDATE")
            await asyncio.sleep(AWAY_S)
            await other.rollback()

    async def kill_a_worker(self) -> None:
        self.workers()[0].kill()

    async def disturb_replies(self) -> None:
        """Nobody may get a row that is not theirs."""
        wire = NoisyWire(seed=1, every=100)
        self.noisy, self._proxy.edit = True, wire
        await asyncio.sleep(AWAY_S)
        self._proxy.edit = None
        await asyncio.sleep(1)  # for what is still on its way
        self.noisy = False

    def faults(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.kill_postgres,
            self.end_all_connections,
            self.kill_a_worker,
            self.suspend,
            self.cut_all_connections,
            self.lock_rows,
            self.restart_postgres,
            self.strand_all_connections,
            self.disturb_replies,
        ]


@asynccontextmanager
async def ground() -> AsyncGenerator[Ground]:
    with temporary() as cluster, TemporaryDirectory() as folder:
        migrate.apply(cluster.url)
        async with Proxy(cluster.url) as proxy:
            service = RunningService(Path(folder), DATABASE_URL=proxy.url, AUTH_MODE="none", **LIMITS)
            await asyncio.to_thread(service.start)
            try:
                await asyncio.to_thread(wait_ready, service.url)
                yield Ground(cluster, proxy, service)
            finally:
                await asyncio.to_thread(service.stop)


class Use(NamedTuple):
    """Of the fullest worker, at one moment."""

    rss_mb: float
    descriptors: int


async def sample(ground: Ground, seen: list[Use]) -> None:
    """Looks every second at the workers, until it is cancelled."""
    while True:
        await asyncio.sleep(SAMPLE_S)
        with suppress(psutil.Error):
            workers = ground.workers()
            seen.append(
                Use(
                    max(worker.memory_info().rss for worker in workers) / 1e6,
                    max(worker.num_fds() for worker in workers),
                )
            )


def halves(seen: list[Use]) -> tuple[Use, Use]:
    """The medians of the two halves."""
    middle = len(seen) // 2
    first, second = (
        Use(statistics.median(use.rss_mb for use in half), round(statistics.median(use.descriptors for use in half)))
        for half in (seen[:middle], seen[middle:])
    )
    return first, second


def balance(books: list[Books], url: str) -> list[str]:
    """What in the database is not as the books say it may be; nothing where they balance."""
    wrong: list[str] = []
    with psycopg.connect(url) as connection:
        for book in books:
            rows = connection.execute(
                "SELECT title, description, completed FROM tasks WHERE user_id = %s", (book.user,)
            ).fetchall()
            found = {title: State(description, completed) for title, description, completed in rows}
            if len(found) != len(rows):
                wrong.append(f"{book.user}: {len(rows) - len(found)} creates were done twice")
            for title in found.keys() | book.possible.keys():
                allowed = book.possible.get(title, {None})
                if found.get(title) not in allowed:
                    wrong.append(f"{title} of {book.user} is {found.get(title)} and should be one of {allowed}")
    return wrong


async def run(minutes: float, every_s: float, seed: int, say: Callable[[str], None]) -> bool:
    """The whole soak. `say` is told what happens, a line at a time. Whether everything was as it should be."""
    async with ground() as place:
        soak, seen, late = Soak(place.service.url, seed, lambda: place.noisy), list[Use](), list[str]()

        async def faults() -> None:
            begin = time.monotonic()
            for number in range(1, round(minutes * 60 / every_s)):
                await asyncio.sleep(begin + number * every_s - time.monotonic())
                fault = place.faults()[(number - 1) % len(place.faults())]
                await fault()
                over = time.monotonic()
                enough = soak.acknowledged + CLIENTS
                while soak.acknowledged < enough and time.monotonic() - over < 2 * BACK_S:
                    await asyncio.sleep(0.01)
                took = time.monotonic() - over
                say(f"{over - begin:5.0f} s  {fault.__name__.replace('_', ' ')}: writes went on after {took:.2f} s")
                if took > BACK_S:
                    late.append(fault.__name__)
            await asyncio.sleep(max(0, begin + minutes * 60 - time.monotonic()))

        watch = asyncio.create_task(sample(place, seen))
        await soak.run(faults)
        watch.cancel()
        wrong = soak.surprises + balance(soak.books, place.cluster.url)
    first, second = halves(seen)
    grown = second.rss_mb > first.rss_mb * GROWTH or second.descriptors > first.descriptors + SPARE_DESCRIPTORS
    total = sum(soak.statuses.values())
    say(f"requests answered    {total}, of them " + ", ".join(f"{n} {s}" for s, n in sorted(soak.statuses.items())))
    say(f"connections cut      {soak.cut}")
    say(f"writes acknowledged  {soak.acknowledged}, each found as it was left")
    say(
        f"writes in doubt      {sum(book.in_doubt() for book in soak.books)}, each done or not done, nothing in between"
    )
    say(f"keyed creates        {soak.retried} times sent again, none done twice")
    say(f"worker's memory      {first.rss_mb:.1f} MB in the first half, {second.rss_mb:.1f} MB in the second")
    say(f"worker's descriptors {first.descriptors} in the first half, {second.descriptors} in the second")
    for line in wrong[:20]:
        say(f"WRONG: {line}")
    for name in late:
        say(f"WRONG: {name}: writes took longer than {BACK_S} s to go on")
    if grown:
        say("WRONG: it grows")
    good = not (wrong or late or grown)
    say("the ledger balances" if good else f"the ledger does not balance: {len(wrong)} entries")
    return good


def _state(task: dict[str, Any]) -> State:
    return State(task["description"], task["completed"])
