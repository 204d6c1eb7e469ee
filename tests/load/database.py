"""A throw-away PostgreSQL for measurements, set up as one would for real work, and the data in it.

Task `i` belongs to user `(i - 1) % users + 1`, so who draws a number knows its owner without asking. Loaded in that
order, each user's tasks are spread over the table, as they are where users add a task now and then: a page of 50 is 50
heap pages, the worst case. Loaded `together`, each user's stand side by side, as after CLUSTER: the best.
"""

import logging
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg

from service.operations.embedded import Embedded
from tests.load.environment import surroundings

LOG = logging.getLogger(__name__)
CHUNK = 50_000  # rows a statement loads
REPORTED = 500_000

# What is not named here is as PostgreSQL 18 comes: fsync, synchronous_commit and full_page_writes on, autovacuum on.
SETTINGS = {
    "shared_buffers": f"{min(psutil.virtual_memory().total // 4, 4 << 30) >> 20}MB",  # a quarter, as its manual advises
    "max_wal_size": "8GB",  # so that checkpoints come by time,
    "checkpoint_timeout": "15min",  # and not in one of two runs that are compared
    "max_connections": "300",
    # Durable, as it comes; here so that the report says so, and a default that changes cannot flatter it.
    "fsync": "on",
    "synchronous_commit": "on",
}

USERS = "INSERT INTO users (id) SELECT 'user-' || u FROM generate_series(1, %s) AS u"
TASKS = """
    INSERT INTO tasks (user_id, id, title, description, completed, created_at, updated_at) OVERRIDING SYSTEM VALUE
    SELECT 'user-' || ((i - 1) %% %(users)s + 1), i, 'Task number ' || i || ': buy milk & “bread”',
        CASE WHEN i %% 3 > 0 THEN 'Before noon, because the shop closes early <today>.' END, i %% 4 > 0, made, made
    FROM generate_series(%(first)s::bigint, %(last)s) AS place,
        LATERAL (SELECT {number} AS i) AS task,
        LATERAL (SELECT timestamptz '2026-01-01Z' + i * interval '1.234567 s' AS made) AS moment"""
SPREAD = "place"
TOGETHER = "(place - 1) %% (%(tasks)s / %(users)s) * %(users)s + (place - 1) / (%(tasks)s / %(users)s) + 1"


@contextmanager
def cluster(**settings: str) -> Generator[Embedded]:
    """A temporary PostgreSQL on disk; `settings` on top of SETTINGS."""
    LOG.info("starting PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="tasks-load-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # PostgreSQL runs as another account where the harness is root
        with Embedded(Path(folder), SETTINGS | settings) as embedded:
            yield embedded


def migrate(url: str) -> None:
    """The schema, made by the service's own command."""
    LOG.info("applying the migrations")
    command = [sys.executable, "-m", "service", "migrate", "apply"]
    done = subprocess.run(command, **surroundings(DATABASE_URL=url, AUTH_MODE="none"), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the migrations failed: {done.stderr or done.stdout}")


def load(url: str, users: int, tasks: int, *, together: bool = False) -> None:
    """Replaces what is in the tables by `tasks` tasks of `users` users; `together` asks for as many of each user."""
    assert not (together and tasks % users)
    statement = TASKS.format(number=TOGETHER if together else SPREAD)
    LOG.info("loading %s tasks of %s users", f"{tasks:,}", f"{users:,}")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("TRUNCATE users RESTART IDENTITY CASCADE")
        connection.execute("SET session_replication_role = replica")  # no foreign-key check: the owners are all there
        connection.execute("SET synchronous_commit = off")
        connection.execute(USERS, (users,))
        for first in range(1, tasks + 1, CHUNK):
            last = min(first + CHUNK - 1, tasks)
            connection.execute(statement, {"users": users, "tasks": tasks, "first": first, "last": last})
            if last % REPORTED == 0:
                LOG.info("%s of %s tasks loaded", f"{last:,}", f"{tasks:,}")
        connection.execute("SELECT setval(pg_get_serial_sequence('tasks', 'id'), %s)", (tasks,))
        LOG.info("VACUUM, ANALYZE and CHECKPOINT")
        connection.execute("VACUUM (ANALYZE) users, tasks")
        connection.execute("CHECKPOINT")


def described(url: str, names: Mapping[str, str] = SETTINGS) -> dict[str, str]:
    """What the server says of itself: its version, and the settings that were set."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", (list(names),)
        )
        return {"server_version": connection.info.parameter_status("server_version") or "", **dict(rows.fetchall())}
