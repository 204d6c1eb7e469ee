"""The walk of migrations/README.md: each command, run again, prints what the page shows.

TASKS_TEST_WRITE=1 writes the new output to the page. A migration is killed for the page, as its text says.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from service.operations import embedded
from tests.support.databases import named
from tests.support.examples import BLOCK, WRITE, rerun, same
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.migrations, pytest.mark.timeout(400)]

PAGE = ROOT / "migrations" / "README.md"


@pytest.fixture
def cluster() -> Iterator[embedded.Embedded]:
    """A cluster without the roles and the database that the walk makes."""
    with embedded.temporary({"fsync": "on", "full_page_writes": "on"}) as cluster:
        yield cluster


@contextmanager
def migrating(cluster_url: str, environment: dict[str, str], folder: Path) -> Iterator[None]:
    """Rolls back to 0002 and applies: its index waits for a transaction while the block runs. Then it is killed."""
    command = [sys.executable, "-m", "service", "migrate"]
    subprocess.run([*command, "rollback", "--to", "0002", "--yes"], env=environment, cwd=folder, check=True)
    with (
        psycopg.connect(named(cluster_url, "walk")) as holder,
        psycopg.connect(cluster_url, autocommit=True) as admin,
    ):
        holder.execute("LOCK TABLE tasks IN ROW EXCLUSIVE MODE")
        applying = subprocess.Popen([*command, "apply"], env=environment, cwd=folder)
        try:
            building = (
                "SELECT FROM pg_stat_activity WHERE query LIKE '%INDEX CONCURRENTLY%' AND pid <> pg_backend_pid()"
            )
            wait_until(lambda: admin.execute(f"{building} AND wait_event_type = 'Lock'").fetchone() is not None)
            yield
        finally:
            applying.send_signal(signal.SIGKILL)
            applying.wait()
        holder.rollback()
        wait_until(lambda: admin.execute(f"{building} AND state = 'active'").fetchone() is None)


def test_each_command_prints_what_the_page_shows(cluster: embedded.Embedded, tmp_path: Path) -> None:
    host = conninfo_to_dict(cluster.url)["host"]
    replaced = [
        ("tasks-service ", f"{sys.executable} -m service "),
        *(
            (f"psql postgresql://{login}@127.0.0.1:5544/{shown}", f"psql 'postgresql://{role}@/{real}?host={host}'")
            for login, role in (("postgres:secret", "tasks"), ("tasks_owner:own", "tasks_owner"))
            for shown, real in (("postgres", "postgres"), ("tasks", "walk"), ("shop", "shop"))
        ),
        *(
            (
                f"MIGRATION_DATABASE_URL=postgresql://tasks_owner:own@127.0.0.1:5544/{name}",
                f"MIGRATION_DATABASE_URL='postgresql://tasks_owner:own@/{name}?host={host}'",
            )
            for name in ("shop", "old")
        ),
        ("CREATE DATABASE tasks ", "CREATE DATABASE walk "),
        ("database: tasks on ", "database: walk on "),
        (" on 127.0.0.1:5544\n", f" on {host}:5432\n"),
    ]
    path = f"{embedded.bin_dir()}:{os.environ['PATH']}"
    environment = {
        **{name: text for name, text in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")},
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "AUTH_MODE": "none",
        "DATABASE_URL": f"postgresql://tasks_app:app@/walk?host={host}",
        "MIGRATION_DATABASE_URL": f"postgresql://tasks_owner:own@/walk?host={host}",
    }

    def again(match: re.Match[str]) -> str:
        if "The lock's holder is alive" in match[1]:
            with migrating(cluster.url, environment, tmp_path):
                return f"```console\n{rerun(match[1], tmp_path, replaced, environment)}```"
        return f"```console\n{rerun(match[1], tmp_path, replaced, environment)}```"

    written = BLOCK.sub(again, PAGE.read_text())
    if WRITE:
        PAGE.write_text(written)
    assert same(written) == same(PAGE.read_text())
