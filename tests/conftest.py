"""One PostgreSQL for the whole run; a migrated template, which a test clones that needs its own database;
one service for the tests that only need their own user.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from service.operations import embedded, migrate
from service.operations.embedded.temporary import temporary
from service.settings import names
from tests.support import pgbouncer
from tests.support.databases import create, create_template, schema, wipe
from tests.support.processes import RunningService, wait_ready

POOLED = "TASKS_TEST_POOLED" in os.environ  # the services of the API tests go through PgBouncer in transaction mode
ELSEWHERE = os.environ.get("TASKS_TEST_DATABASE_URL")  # a migrated database that the shared service uses
PARTITIONED = "TASKS_TEST_PARTITIONED" in os.environ  # the API tests run with tasks partitioned by hash


def pytest_configure() -> None:
    """nohup and a script's `&` have signals ignored, which a service that a test starts and signals would inherit."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Folders that `-m` leaves out anyway: to import them takes each process a quarter of the time for collecting."""
    name = collection_path.name
    return True if name in ("faults", "load") and f"not {name}" in config.option.markexpr else None


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "faults":
            item.add_marker("faults")


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that runs in this process configures logging, for good."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with nothing in it, and no settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in names():
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def cluster() -> Iterator[embedded.Embedded]:
    """A PostgreSQL that is thrown away afterwards."""
    with ExitStack() as stack:
        cluster = stack.enter_context(temporary({"max_connections": "300"}))
        if POOLED:
            RunningService.pooler = stack.enter_context(pgbouncer.running(cluster.url, backends=10))
        yield cluster


@pytest.fixture(scope="session")
def template(cluster: embedded.Embedded) -> str:
    """The name of a migrated database that nobody is connected to."""
    return create_template(cluster.url, partitioned=PARTITIONED)


@pytest.fixture(scope="session")
def clone(cluster: embedded.Embedded, template: str) -> Callable[[], str]:
    """Makes a migrated, empty database and returns its URL."""
    return lambda: create(cluster.url, template=template)


@pytest.fixture
def database_url(clone: Callable[[], str]) -> str:
    """A migrated, empty database for one test."""
    return clone()


@pytest.fixture(scope="session")
def shared_database_url(request: pytest.FixtureRequest) -> str:
    """The database behind `service`."""
    return ELSEWHERE or request.getfixturevalue("clone")()


@pytest.fixture(scope="session")
def service(shared_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """The service that most API tests talk to."""
    with RunningService(
        tmp_path_factory.mktemp("service"),
        DATABASE_URL=shared_database_url,
        AUTH_MODE="none",
    ) as running:
        wait_ready(running.url)
        yield running


@pytest.fixture(scope="session")
def client(service: RunningService) -> Iterator[httpx.Client]:
    """A client of `service`."""
    with httpx.Client(base_url=service.url, timeout=30) as client:
        yield client


@pytest.fixture
def user() -> str:
    """A user that no other test has."""
    return f"user-{uuid4()}"


@pytest.fixture
def tasks(user: str) -> str:
    """The path of that user's tasks."""
    return f"/api/{user}/tasks"


@pytest.fixture(scope="session")
def make_empty(cluster: embedded.Embedded) -> Callable[[], str]:
    """Makes an empty database and returns its URL."""
    return lambda: create(cluster.url)


@pytest.fixture(scope="session")
def reused(make_empty: Callable[[], str]) -> str:
    return make_empty()


@pytest.fixture
def empty(reused: str) -> str:
    """The URL of an empty database: one for all tests, since making one takes long, and emptied for each."""
    wipe(reused)
    return reused


@pytest.fixture
def migrated(empty: str) -> str:
    """The same, migrated."""
    migrate.apply(empty)
    return empty


@pytest.fixture(scope="session")
def undisturbed(clone: Callable[[], str]) -> str:
    """What `schema` should say of a database that is migrated all the way."""
    return schema(clone())
