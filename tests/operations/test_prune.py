"""`tasks-service prune` removes idempotency records past their 24 hours, in small batches, and is in nobody's way."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import CliRunner, Result

from service.database import Database
from service.operations import prune
from service.operations.cli import cli
from service.operations.sql import query
from tests.support.databases import a_day_passes, until_blocked
from tests.support.processes import RunningService

pytestmark = pytest.mark.migrations

SAME = {"title": "Buy milk"}
KEYED = {"Idempotency-Key": "k"}

RECORDS = """
INSERT INTO idempotency_keys (user_id, operation, key, fingerprint, task_ids, created_at)
SELECT 'u', 'create', %(name)s || n, '', '{1}', now() - %(age)s::interval
FROM generate_series(1, %(count)s) AS n
"""
# Notes how many records each statement removes, where it removes any.
NOTES = """
CREATE TABLE notes (removed integer);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO notes SELECT count(*) FROM gone HAVING count(*) > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER note AFTER DELETE ON idempotency_keys REFERENCING OLD TABLE AS gone
FOR EACH STATEMENT EXECUTE FUNCTION note()
"""


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["prune", *arguments], env={"DATABASE_URL": url})


def fill(connection: psycopg.Connection[Any], **ages: tuple[int, str]) -> None:
    """For each name so many records of that age."""
    connection.execute("INSERT INTO users (id) VALUES ('u') ON CONFLICT DO NOTHING")
    for name, (count, age) in ages.items():
        connection.execute(RECORDS, {"name": name, "count": count, "age": age})


def test_what_is_past_its_24_hours_goes_in_small_batches(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(NOTES)
        fill(connection, new=(1500, "0 s"), good=(50, "23:59:00"), over=(50, "24:00:00"), old=(2450, "90 days"))
        done = run(database_url)
        assert (done.exit_code, done.output) == (0, "removed 2500 idempotency records\n")
        left = connection.execute("SELECT rtrim(key, '0123456789'), count(*) FROM idempotency_keys GROUP BY 1")
        assert dict(left.fetchall()) == {"new": 1500, "good": 50}
        notes = connection.execute("SELECT removed FROM notes").fetchall()
        assert notes == [(1000,), (1000,), (500,)]


def test_it_says_so_in_json(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with psycopg.connect(database_url, autocommit=True) as connection:
        fill(connection, old=(3, "25 hours"))
    for removed in (3, 0):
        done = run(database_url, "--json")
        assert (done.exit_code, json.loads(done.output)) == (0, {"removed": removed})


def test_tasks_stay(client: httpx.Client, shared_database_url: str, user: str, tasks: str) -> None:
    made = client.post(tasks, json=SAME, headers=KEYED).json()
    a_day_passes(shared_database_url, user)
    assert run(shared_database_url).exit_code == 0
    assert client.get(tasks).json() == [made]
    again = client.post(tasks, json=SAME, headers=KEYED)
    assert (again.status_code, "idempotency-replayed" in again.headers) == (201, False)


async def test_a_record_that_is_just_used_again_is_passed_over(
    client: httpx.Client, shared_database_url: str, user: str, tasks: str
) -> None:
    """It is not waited for, and it stays."""
    client.post(tasks, json=SAME, headers=KEYED)
    a_day_passes(shared_database_url, user)
    with psycopg.connect(shared_database_url) as other:
        other.execute("UPDATE idempotency_keys SET created_at = now() WHERE user_id = %s", (user,))
        async with asyncio.timeout(5):
            async with database(shared_database_url) as ours:
                await prune.remove_expired(ours)
    replayed = client.post(tasks, json=SAME, headers=KEYED)
    assert replayed.headers["idempotency-replayed"] == "true"


async def test_a_request_that_waits_for_it_creates(
    service: RunningService, client: httpx.Client, shared_database_url: str, user: str, tasks: str
) -> None:
    first = client.post(tasks, json=SAME, headers=KEYED).json()
    a_day_passes(shared_database_url, user)
    async with httpx.AsyncClient(base_url=service.url, timeout=30, verify=False) as slow:
        with psycopg.connect(shared_database_url) as other:
            assert other.execute(query("prune", "public"), {"rows": prune.BATCH_ROWS}).rowcount > 0
            waiting = asyncio.create_task(slow.post(tasks, json=SAME, headers=KEYED))
            await until_blocked(shared_database_url)
        answer = await waiting
    assert (answer.status_code, "idempotency-replayed" in answer.headers) == (201, False)
    assert client.get(tasks).json() == [answer.json(), first]
    assert client.post(tasks, json=SAME, headers=KEYED).content == answer.content


async def test_keyed_posts_go_on_while_it_prunes(
    service: RunningService,
    client: httpx.Client,
    shared_database_url: str,
    user: str,
    tasks: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each expired key creates once more, whether its record is pruned before, meanwhile or not at all."""
    monkeypatch.setattr(prune, "BATCH_ROWS", 3)
    created, replayed = (201, False), (201, True)
    limits = httpx.Limits(max_connections=20, max_keepalive_connections=20)
    removed, rounds, keys = 0, 5, 20
    async with httpx.AsyncClient(base_url=service.url, timeout=30, limits=limits, verify=False) as poster:

        async def post(n: int) -> tuple[int, bool]:
            answer = await poster.post(tasks, json=SAME, headers={"Idempotency-Key": str(n)})
            return answer.status_code, "idempotency-replayed" in answer.headers

        async def go_on_pruning() -> None:
            nonlocal removed
            async with database(shared_database_url) as ours:
                while True:
                    removed += await prune.remove_expired(ours)

        pruning = asyncio.create_task(go_on_pruning())
        for _ in range(rounds):
            answers = await asyncio.gather(*(post(n // 2) for n in range(2 * keys)))
            assert Counter(answers) == {created: keys, replayed: keys}
            assert set(await asyncio.gather(*map(post, range(keys)))) == {replayed}
            a_day_passes(shared_database_url, user)
        pruning.cancel()
        with suppress(asyncio.CancelledError):
            await pruning
    assert 0 < removed <= rounds * keys
    assert len(client.get(tasks).json()) == rounds * keys


@asynccontextmanager
async def database(url: str) -> AsyncGenerator[Database]:
    opened = Database(url, connections=2)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()
