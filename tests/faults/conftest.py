"""A PostgreSQL of the faults' own, which may be killed, and services before it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import psycopg
import pytest

from service.operations import embedded, migrate
from tests.conftest import named, wait_ready
from tests.support.processes import RunningService

_numbers = count(1)


@pytest.fixture(scope="session")
def fragile() -> Iterator[embedded.Embedded]:
    """The cluster, with a migrated database to make others from."""
    with embedded.temporary({"max_connections": "200"}) as cluster:
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE template_tasks")
        migrate.apply(named(cluster.url, "template_tasks"))
        yield cluster


@pytest.fixture
def victim(fragile: embedded.Embedded) -> Iterator[embedded.Embedded]:
    """The cluster, up before the test and, whatever was done to it, up again after."""
    fragile.ensure_running()
    yield fragile
    fragile.ensure_running()


@pytest.fixture
def url(victim: embedded.Embedded) -> str:
    """A migrated, empty database on it."""
    name = f"fault_{next(_numbers)}"
    with psycopg.connect(victim.url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template_tasks")
    return named(victim.url, name)


Serve = Callable[..., RunningService]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a service on the database of this URL, with these settings; stops it at the end of the test."""
    with ExitStack() as stack:

        def start(url: str, *, ready: bool = True, **settings: str) -> RunningService:
            service = stack.enter_context(
                RunningService(tmp_path, **({"DATABASE_URL": url, "AUTH_MODE": "none"} | settings))
            )
            if ready:
                wait_ready(service.url)
            return service

        yield start
