"""The service is killed after PostgreSQL has committed, before the client is answered."""

import json
import os
from pathlib import Path
from signal import SIGKILL, SIGSTOP
from typing import Any

import psycopg
import pytest

from tests.support.databases import until_blocked
from tests.support.http import connect, exchange, read_response, request
from tests.support.processes import RunningService, wait_ready
from tests.support.waiting import wait_until

ONE = {"title": "Buy milk"}
THREE = [{"title": "Buy milk"}, {"title": "Buy bread"}, {"title": "Call home"}]


@pytest.mark.parametrize(("suffix", "body", "count"), [("", ONE, 1), ("/batch", THREE, 3)], ids=["create", "batch"])
async def test_a_keyed_create_that_was_committed_and_not_answered_is_replayed_after_a_kill(
    database_url: str, tmp_path: Path, suffix: str, body: Any, count: int
) -> None:
    """PostgreSQL commits while the service stands still; before it can go on, it is killed."""
    path = "/api/user/tasks"
    sent = request("POST", path + suffix, json.dumps(body).encode(), {"Idempotency-Key": "k"})
    settings = {"DATABASE_URL": database_url, "AUTH_MODE": "none"}
    with RunningService(tmp_path, **settings) as victim:
        wait_ready(victim.url)
        with connect(victim.url) as connection:
            with psycopg.connect(database_url) as other:
                other.execute("INSERT INTO users (id) VALUES ('user')")  # for which the statement waits
                connection.sendall(sent)
                await until_blocked(database_url)
                os.killpg(victim.process.pid, SIGSTOP)
            made = await_tasks(database_url)
            os.killpg(victim.process.pid, SIGKILL)
            with pytest.raises(ConnectionError):
                read_response(connection)
    assert len(made) == count
    with RunningService(tmp_path, **settings) as service:
        wait_ready(service.url)
        reply = exchange(service.url, sent)
        assert (reply.status, reply.headers["idempotency-replayed"]) == (201, "true")
        answered = reply.json() if suffix else [reply.json()]
        assert [task["id"] for task in answered] == made
        assert service.http.get(path).json() == answered[::-1]


def await_tasks(url: str) -> list[int]:
    """The ids of the tasks that are there, once there are some."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = wait_until(lambda: connection.execute("SELECT id FROM tasks ORDER BY id").fetchall())
    return [row[0] for row in rows]
