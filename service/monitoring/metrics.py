"""`/metrics`: what the service did, the figures of all workers together.

A request costs one dictionary look-up and a few additions here. Each worker leaves a snapshot of its numbers in a
shared folder once a second; the worker that is asked adds them up.

Reads the numbers that the other parts keep. None of those parts may import this.
"""

import asyncio
import os
import resource
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path

from litestar import Response, Router, route
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service.auth import Authenticator, HasKeyStats
from service.database import Database
from service.http.asgi import GET_AND_HEAD
from service.http.capacity import REASONS, Capacity
from service.http.errors import AuthFailure
from service.monitoring.expired_records import EXPIRED_RECORDS, Expired, ExpiredRecords
from service.monitoring.exposition import BUCKETS, exposition
from service.monitoring.health import NO_STORE
from service.monitoring.snapshots import (
    Counters,
    Folder,
    Gauges,
    Histogram,
    RouteMethodStatus,
    Snapshot,
    StatementTime,
)

SNAPSHOT_S = 1.0
METHODS = frozenset({"", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # "": it was not even HTTP
_BEGAN = time.time()
_SUM = len(BUCKETS) + 1  # as in service.database.stats
_CONTENT_TYPE = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")  # Litestar adds it


class Metrics:
    """Collects one worker's numbers and adds up those of all. `folder` is shared by the workers; None: there is one."""

    def __init__(
        self,
        database: Database,
        capacity: Capacity,
        auth_failures: Mapping[AuthFailure, int],
        authenticator: Authenticator | None,
        folder: Path | None,
    ) -> None:
        self._database = database
        self._capacity = capacity
        self._auth_failures = auth_failures
        self._authenticator = authenticator
        self._folder = None if folder is None else Folder(folder)
        self._expired = ExpiredRecords(database)
        self._requests: dict[RouteMethodStatus, Histogram] = {}
        self._timer: asyncio.TimerHandle | None = None

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Takes account of a request that ended."""
        key = (route, method, status)
        histogram = self._requests.get(key)
        if histogram is None:
            if method not in METHODS:  # made up by a client: each would be another series
                key = (route, "other", status)
            histogram = self._requests.get(key)
        if histogram is None:
            histogram = self._requests[key] = [0.0] * (len(BUCKETS) + 2)
        histogram[bisect_left(BUCKETS, seconds)] += 1.0
        histogram[_SUM] += seconds

    def start(self) -> None:
        """Begins to leave snapshots, where there are other workers to read them."""
        if self._folder is not None:
            self._timer = asyncio.get_running_loop().call_later(SNAPSHOT_S, self.start)  # a bug below must not end it
            self._folder.write(self._own())

    def stop(self) -> None:
        """Leaves a last snapshot: what a worker counted is not forgotten with it."""
        if self._folder is not None and self._timer is not None:
            self._timer.cancel()
            self._folder.write(self._own())

    def exposition(self) -> bytes:
        """All workers' numbers in Prometheus's text format."""
        snapshots = [self._own()]
        restarts = 0
        if self._folder is not None:
            snapshots += self._folder.others()
            restarts = self._folder.worker_restarts()
        expired = _newest(snapshots)
        self._expired.refresh(expired, sum(map(_statements, snapshots)))
        return exposition(snapshots, expired, restarts)

    def _own(self) -> Snapshot:
        database, stats, capacity = self._database, self._database.stats, self._capacity
        return Snapshot(
            pid=os.getpid(),
            began=_BEGAN,
            requests=list(self._requests.items()),
            counters=Counters(
                connects=stats.connects,
                connects_failed=stats.unreachable,
                connections_lost=stats.lost,
                calls_retried=stats.retried,
                calls_hedged=stats.hedged,
                cpu_seconds=time.process_time(),
            ),
            gauges=Gauges(
                requests_in_flight=capacity.in_flight,
                requests_waiting=capacity.turns.waiting,
                http_connections=capacity.connections,
                buffered_bytes=capacity.buffered,
                database_connections=database.lanes,
                max_database_connections=database.max_connections,
                calls_in_flight=database.in_flight,
                calls_queued=database.queued,
                resident_bytes=_resident_bytes(),
                descriptors=_descriptors(),
                max_descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            ),
            keys=self._authenticator.key_stats() if isinstance(self._authenticator, HasKeyStats) else None,
            statements={name: StatementTime(calls.count, calls.seconds) for name, calls in stats.statements.items()},
            failures=dict(stats.failures),
            rejected=dict.fromkeys(REASONS, 0.0) | capacity.rejected,
            auth_failures={**dict.fromkeys(AuthFailure, 0.0), **self._auth_failures},
            waits=list(stats.waits),
            times=list(stats.times),
            groups=[float(count) for count in stats.groups],
            expired=self._expired.known(),
        )


def router(metrics: Metrics) -> Router:
    """`/metrics`."""

    @route("/metrics", http_method=GET_AND_HEAD, sync_to_thread=False)
    def expose() -> Response[bytes]:
        """Prometheus's text format."""
        return Response(metrics.exposition(), media_type=_CONTENT_TYPE)

    return Router("/", route_handlers=[expose], tags=["operations"], cache_control=NO_STORE)


def _newest(snapshots: Sequence[Snapshot]) -> Expired | None:
    found = [snapshot.expired for snapshot in snapshots if snapshot.expired is not None]
    return max(found, key=lambda expired: expired.asked_at, default=None)


def _statements(snapshot: Snapshot) -> float:
    """How many statements there were for requests: all but those of /metrics itself."""
    return sum(one.count for name, one in snapshot.statements.items() if name != EXPIRED_RECORDS.name)


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0  # no /proc here


def _descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- a hundred Path objects would be made for a count
    except OSError:
        return 0
