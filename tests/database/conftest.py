"""A database with the tests' tables, and a plain connection, to observe and to cause faults with."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator

import psycopg
import pytest
import uvloop

from service.database import Database
from tests.database.ground import TABLES, opened
from tests.support.databases import terminate


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that serves: it has its own way with sockets that libpq closes."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def one_database_url(clone: Callable[[], str]) -> str:
    """One database for all: to empty it takes a tenth of what a clone takes."""
    return clone()


@pytest.fixture
def admin(one_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(one_database_url, autocommit=True, application_name="admin") as connection:
        terminate(connection)
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        connection.execute(TABLES)
        yield connection


@pytest.fixture
def url(one_database_url: str, admin: psycopg.Connection) -> str:
    """A database that has the tables and nothing in them."""
    return one_database_url


@pytest.fixture
async def database(url: str) -> AsyncGenerator[Database]:
    async with opened(url) as database:
        yield database
