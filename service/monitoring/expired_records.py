"""How many idempotency records wait for `tasks-service prune`, and since when: the only figures of /metrics that the
database is asked for.

Asked in the background by the worker that is scraped, once a minute at most for all workers, and not at all where
nobody has used the database since: a scrape must not keep a Neon compute awake that could be suspended. Must not import
metrics.
"""

import asyncio
import time

import msgspec

from service.database import Database, Failure, Statement, read
from service.paths import root

ASK_S = 60.0
FRESH_S = 300.0  # an older count is not shown: prune may have run since
MAX_COUNTED = 10_000  # 2 ms (PostgreSQL 18, with the index in memory)


class Expired(msgspec.Struct, frozen=True):
    """One look, and what it found. Times are seconds since 1970."""

    asked_at: float
    statements: float  # how many all workers had sent by then: known for longer than what was found
    records: int | None  # MAX_COUNTED: or more; None: it failed, is too old, or the database is away
    oldest: float | None  # when it was created

    def age_s(self) -> float:
        return 0.0 if self.oldest is None else max(0.0, time.time() - self.oldest)


def _found(records: int, oldest: float | None) -> tuple[int, float | None]:
    return records, oldest


EXPIRED_RECORDS = Statement(
    "expired_records", read(root() / "sql" / "operations", "expired_records"), {"rows": int}, _found
)


class ExpiredRecords:
    """What this worker knows of them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: Expired | None = None
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    def known(self) -> Expired | None:
        """This worker's last look; None: it has not asked yet."""
        found = self._found
        if found is not None and (time.time() - found.asked_at > FRESH_S or not self._connected):
            return msgspec.structs.replace(found, records=None)
        return found

    @property
    def _connected(self) -> bool:
        return self._database.reachable and self._database.lanes > 0

    def refresh(self, newest: Expired | None, statements: float) -> None:
        """Begins to ask, if `newest` of all workers is a minute old and there were statements since."""
        if not self._connected or time.time() - self._asked_at < ASK_S:
            return
        if newest is not None and (time.time() - newest.asked_at < ASK_S or statements <= newest.statements):
            return
        self._asked_at = time.time()
        self._asking = asyncio.get_running_loop().create_task(self._ask(statements))

    async def _ask(self, statements: float) -> None:
        try:
            row = await self._database.fetch_one(EXPIRED_RECORDS, MAX_COUNTED)
        except Failure:  # logged and counted as every statement's
            row = (None, None)
        assert row is not None
        self._found = Expired(time.time(), statements, *row)
