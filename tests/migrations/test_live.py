"""Each migration is applied, and rolled back, on a million tasks while requests go on: none fails, none waits long."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psycopg
import pytest

from service.operations import migrate
from tests.support.processes import RunningService, wait_ready

pytestmark = pytest.mark.slow

TASKS = 1_000_000
USERS = 1000
RATE = 100  # requests a second
LONGEST_S = 1.0
IDS = migrate.ids()
LIVE = IDS[2:]  # before those there is no table that requests could need


@pytest.fixture(scope="module")
def url(clone: Callable[[], str]) -> str:
    """A database with a million tasks."""
    url = clone()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO users (id) SELECT 'user-' || n FROM generate_series(0, %s) AS n", (USERS - 1,))
        connection.execute("SET session_replication_role = replica")  # the users are there
        connection.execute(
            "INSERT INTO tasks (user_id, title, description, completed) "
            "SELECT 'user-' || n %% %s, 'Task ' || n, repeat('word ', n %% 40), n %% 5 > 0 "
            "FROM generate_series(1, %s) AS n",
            (USERS, TASKS),
        )
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")
    return url


@pytest.fixture(scope="module")
def service(url: str) -> Iterator[RunningService]:
    with TemporaryDirectory() as folder, RunningService(Path(folder), DATABASE_URL=url, AUTH_MODE="none") as running:
        wait_ready(running.url)
        yield running


class Load:
    """Reads and writes at a fixed rate, whatever the answers take."""

    def __init__(self, base: str) -> None:
        self._base = base
        self.statuses: Counter[str] = Counter()
        self.longest_s = 0.0

    async def run(self) -> None:
        """Until it is cancelled; what has begun is waited for."""
        begin = time.monotonic()
        async with httpx.AsyncClient(base_url=self._base, timeout=30) as client, asyncio.TaskGroup() as requests:
            with suppress(asyncio.CancelledError):
                for n in itertools.count():
                    due = begin + n / RATE
                    await asyncio.sleep(due - time.monotonic())
                    requests.create_task(self._request(client, n, due))

    async def _request(self, client: httpx.AsyncClient, n: int, due: float) -> None:
        user = f"/api/user-{n * 7919 % USERS}/tasks"
        task = f"{user}/{USERS + n * 7919 % USERS}"
        method, path, body = [
            ("GET", task, None),
            ("GET", user + "?limit=50&completed=false", None),
            ("PATCH", task + "/complete", None),
            ("POST", user, {"title": f"Live {n}"}),
            ("PUT", task, {"title": f"Live {n}"}),
        ][n % 5]
        try:
            answer = await client.request(method, path, json=body)
            self.statuses[f"{method} {answer.status_code}"] += 1
        except httpx.HTTPError as error:
            self.statuses[f"{method} {type(error).__name__}"] += 1
        self.longest_s = max(self.longest_s, time.monotonic() - due)


async def loaded(base: str, act: Callable[[], list[str]]) -> tuple[Load, list[str]]:
    load = Load(base)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(1)  # as much load before and after as tells
    done = await asyncio.to_thread(act)
    await asyncio.sleep(1)
    running.cancel()
    await running
    return load, done


async def under_load(base: str, act: Callable[[], list[str]]) -> list[str]:
    """Compared with the same load a moment before, since a busy machine holds requests up, too."""
    idle, _ = await loaded(base, list)
    load, done = await loaded(base, act)
    print(
        f"{done}: {load.statuses.total()} requests, the longest {load.longest_s * 1000:.0f} ms "
        f"({idle.longest_s * 1000:.0f} ms without)"
    )
    assert set(load.statuses) == {"GET 200", "PATCH 200", "POST 201", "PUT 200"}
    assert load.longest_s < LONGEST_S + idle.longest_s
    return done


async def test_no_request_fails_or_waits_long(service: RunningService, url: str) -> None:
    await loaded(service.url, list)  # connections are made and pages read
    for name in LIVE[::-1]:
        assert await under_load(service.url, lambda: migrate.rollback(url)) == [name]
    for name in LIVE:
        assert await under_load(service.url, lambda name=name: migrate.apply(url, to=name)) == [name]


async def test_a_migration_that_holds_requests_up_is_noticed(service: RunningService, url: str) -> None:
    """What a rewrite of the table would do, so that the test above is known to see it."""

    def rewrite() -> list[str]:
        with psycopg.connect(url) as connection:
            connection.execute("ALTER TABLE tasks ALTER COLUMN version TYPE bigint")
            connection.execute("SELECT pg_sleep(1)")
            connection.rollback()
        return []

    with pytest.raises(AssertionError, match=r"504|longest_s < LONGEST_S"):
        await under_load(service.url, rewrite)
