"""A PostgreSQL of the faults' own, which may be killed, and services before it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from service.operations import embedded
from service.operations.embedded.temporary import temporary
from tests.support.databases import TEMPLATE, create, create_template
from tests.support.processes import RunningService, wait_ready


@pytest.fixture(scope="session")
def fragile() -> Iterator[embedded.Embedded]:
    """The cluster, with a migrated database to make others from."""
    with temporary({"max_connections": "200"}) as cluster:
        create_template(cluster.url)
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
    return create(victim.url, template=TEMPLATE)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that every account can pass through. pytest closes its own whenever another run begins."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


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
