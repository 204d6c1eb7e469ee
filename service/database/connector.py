"""Opens PostgreSQL connections and makes lanes of them. All settings of a session are here."""

import asyncio
import logging
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg_pool import AsyncNullConnectionPool

from service.database.failures import Unavailable
from service.database.lane import Lane, LaneOwner
from service.database.statement import Statement, read
from service.paths import root

log = logging.getLogger("service.database")

SESSION_FACTS = read(root() / "sql" / "operations", "session_facts")  # asked once on each new connection
OWN_SEARCH_PATH = "SET LOCAL search_path TO DEFAULT"  # the role's, whatever was set in the session


class PostgresConnector:
    """`owner` is the lanes' owner."""

    def __init__(
        self,
        conninfo: str,
        owner: LaneOwner,
        *,
        max_open: int,
        prepare: bool,
        connect_timeout_s: float,
    ) -> None:
        # By the facts of the last connection. With Citus, a statement that was cancelled outside of BEGIN … COMMIT may
        # have been done.
        self.begin_commit = False
        self._schema = "public"  # of the tables
        self._owner = owner
        self._prepare = prepare
        self._connect_timeout_s = connect_timeout_s
        self._generations: dict[Statement[Any], int] = {}  # shared by all lanes: see Lane
        self._durable = True
        self._pool: AsyncNullConnectionPool[psycopg.AsyncConnection[Any]] = AsyncNullConnectionPool(
            conninfo,
            # A lane keeps its connection for long, so the pool's part is to open, bound and close. A pool that kept
            # spare connections would also reconnect by itself, and so keep a suspended Neon compute awake.
            max_size=max_open,
            open=False,
            kwargs={
                "autocommit": True,
                "prepare_threshold": None,  # lanes prepare their own
                "connect_timeout": max(2, round(connect_timeout_s)),  # libpq's least is 2 s; unset it waits 130 s
                "application_name": "tasks-service",
                # Otherwise the role's, the database's or PGCLIENTENCODING's: text would silently be stored as something
                # else. Unlike a SET, this also holds through a transaction-mode pooler.
                "client_encoding": "UTF8",
                # The kernel, too, notices a peer that vanished, not only the statement limit.
                "keepalives_idle": 30,
                "keepalives_interval": 5,
                "keepalives_count": 3,
            },
        )

    async def start(self) -> None:
        logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # what matters is logged here, once
        await self._pool.open()

    async def stop(self) -> None:
        await self._pool.close()

    async def open(self, lifetime_s: float) -> Lane:
        connection = None
        try:
            connection = await self._pool.getconn(timeout=self._connect_timeout_s)
            with _cut_after(connection, self._connect_timeout_s):
                await self._ask_facts(connection)
            return Lane(
                connection,
                self._owner,
                prepare=self._prepare,
                begin_commit=self.begin_commit,
                schema=self._schema,
                lifetime_s=lifetime_s,
                generations=self._generations,
            )
        except BaseException as error:
            if connection is not None:
                await connection.close()
                await self._pool.putconn(connection)
            if isinstance(error, (psycopg.Error, OSError)):  # TimeoutError is one
                raise Unavailable(str(error).strip().partition("\n")[0] or "no answer in time") from error
            raise

    async def close(self, lane: Lane) -> None:
        await lane.connection.close()
        await self._pool.putconn(lane.connection)

    async def _ask_facts(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Asks a new session where the tables are, and whether Citus is there; warns where commits are not durable."""
        row = await (await connection.execute(SESSION_FACTS.encode())).fetchone()
        assert row is not None
        if row[1] is None:  # through a pooler, the search path may be what another client left: pg_dump leaves none
            async with connection.transaction():
                await connection.execute(OWN_SEARCH_PATH)
                row = await (await connection.execute(SESSION_FACTS.encode())).fetchone()
                assert row is not None
        schema, _, _, _, self.begin_commit, synchronous_commit = row
        self._schema = schema or "public"  # without any, every statement fails and says so
        durable = synchronous_commit not in ("off", "local")
        if self._durable and not durable:
            log.warning(
                "synchronous_commit is %s for this role: when PostgreSQL crashes, acknowledged writes are lost",
                synchronous_commit,
            )
        self._durable = durable


@contextmanager
def _cut_after(connection: psycopg.AsyncConnection[Any], seconds: float) -> Generator[None]:
    """Cuts the connection if what is done on it takes longer. Raises TimeoutError then.

    Not asyncio.timeout: where a query is cancelled, psycopg asks PostgreSQL to cancel it, which takes up to 5 s, and
    then waits another 5 s for its end.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    timer = loop.call_at(end, _shut_down, connection.pgconn.socket)
    try:
        yield
    except psycopg.OperationalError as error:
        if loop.time() < end:
            raise
        raise TimeoutError from error
    finally:
        timer.cancel()


def _shut_down(descriptor: int) -> None:
    """libpq then reads the end of the stream. Its descriptor stays open, as the event loop may be watching it."""
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as peer:
        peer.shutdown(socket.SHUT_RDWR)
