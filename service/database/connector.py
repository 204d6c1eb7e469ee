"""Opens PostgreSQL connections and makes lanes of them. The one place that says how a session must be."""

import asyncio
import logging
from typing import Any

import psycopg
from psycopg_pool import AsyncNullConnectionPool

from service.database.failures import Unavailable
from service.database.lane import Lane, LaneOwner
from service.database.statement import Statement

log = logging.getLogger("service.database")

# Asked once on each new connection. Citus: a cancelled statement outside of BEGIN … COMMIT may have been done there.
_ASK = (
    "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'citus'),"
    " pg_catalog.current_setting('synchronous_commit')"
)


class PostgresConnector:
    """`owner` is told what happens on the lanes."""

    def __init__(
        self,
        conninfo: str,
        owner: LaneOwner,
        *,
        max_open: int,
        prepare: bool,
        connect_timeout_s: float,
        generations: dict[Statement[Any], int],
    ) -> None:
        self.begin_commit = False  # whether the last connection was to a database with Citus
        self._owner = owner
        self._prepare = prepare
        self._connect_timeout_s = connect_timeout_s
        self._generations = generations
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
                # A peer that vanished without a word is noticed by the kernel too, not only by the statement limit.
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
            async with asyncio.timeout(self._connect_timeout_s):
                await self._look_at(connection)
            return Lane(
                connection,
                self._owner,
                prepare=self._prepare,
                begin_commit=self.begin_commit,
                lifetime_s=lifetime_s,
                generations=self._generations,
            )
        except BaseException as error:
            if connection is not None:
                await connection.close()
                await self._pool.putconn(connection)
            if isinstance(error, (psycopg.Error, OSError)):  # asyncio's TimeoutError is one
                raise Unavailable(str(error).strip().partition("\n")[0] or "no answer in time") from error
            raise

    async def close(self, lane: Lane) -> None:
        await lane.connection.close()
        await self._pool.putconn(lane.connection)

    async def _look_at(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Asks a new session whether Citus is there and whether commits are durable; warns where they are not."""
        row = await (await connection.execute(_ASK)).fetchone()
        assert row is not None
        self.begin_commit, durable = row[0], row[1] not in ("off", "local")
        if self._durable and not durable:
            log.warning(
                "synchronous_commit is %s for this role: when PostgreSQL crashes, acknowledged writes are lost",
                row[1],
            )
        self._durable = durable
