"""A worker's numbers as one record, and the folder in which the workers leave theirs for each other.

prometheus-client's own multi-process mode writes to a mapped file under a lock at each increment (2.8 µs a request,
measured). Here each worker writes all of its numbers once a second, and a request only adds to them in memory.

Must not import Litestar or prometheus_client.
"""

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from service.auth import KeyStats
from service.monitoring.expired_records import Expired

log = logging.getLogger("service.metrics")

COMPLAIN_S = 60.0  # between two lines about a folder that is full
WORKER_RESTARTS = "worker_restarts"  # the supervisor's file in the folder

RouteMethodStatus = tuple[str, str, int]
# Counts by bucket, not cumulative, the last for what is above all bounds; then the sum of the values.
Histogram = list[float]


class Counters(msgspec.Struct):
    """What only grows: of the connections and calls of service.database, and this process's CPU time."""

    connects: float
    connects_failed: float
    connections_lost: float
    calls_retried: float
    calls_hedged: float
    cpu_seconds: float


class Gauges(msgspec.Struct):
    """What is so at the moment. The workers' are added up."""

    requests_in_flight: float
    requests_waiting: float
    http_connections: float
    buffered_bytes: float
    database_connections: float
    max_database_connections: float
    calls_in_flight: float
    calls_queued: float
    resident_bytes: float
    descriptors: float
    max_descriptors: float


class StatementTime(msgspec.Struct):
    """Of the statements of one name."""

    count: float
    seconds: float


class Snapshot(msgspec.Struct):
    """One worker's numbers."""

    pid: int
    began: float  # Unix time
    requests: list[tuple[RouteMethodStatus, Histogram]]  # seconds
    counters: Counters
    gauges: Gauges | None  # None: the worker has died
    keys: KeyStats | None  # None: the authenticator has none that it fetches
    statements: dict[str, StatementTime]  # by name
    failures: dict[str, float]  # by SQLSTATE class
    rejected: dict[str, float]  # by reason
    auth_failures: dict[str, float]  # by reason
    waits: Histogram  # of statements, in queues, seconds
    times: Histogram  # of statements, at the database, seconds
    groups: Histogram  # of writes that shared a commit, by how many they were
    expired: Expired | None  # idempotency records to prune


class Folder:
    """Shared by the workers of one service."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next_complaint = 0.0

    def write(self, snapshot: Snapshot) -> None:
        """Replaces what this worker has left here."""
        place = self._path / f"{snapshot.pid}.json"
        fresh = place.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.encode(snapshot))
            fresh.replace(place)
        except OSError as error:
            if time.monotonic() >= self._next_complaint:
                log.warning("%s: figures for the other workers cannot be written: %s", self._path, error.strerror)
                self._next_complaint = time.monotonic() + COMPLAIN_S

    def others(self) -> list[Snapshot]:
        """What the other workers have left here. The counts of a worker that died stay; what it held is gone."""
        snapshots: list[Snapshot] = []
        for place in self._path.glob("*.json"):
            with suppress(OSError, msgspec.DecodeError):
                snapshot = msgspec.json.decode(place.read_bytes(), type=Snapshot)
                if snapshot.pid == os.getpid():
                    continue
                if not _alive(snapshot.pid):
                    snapshot.gauges = snapshot.expired = None
                snapshots.append(snapshot)
        return snapshots

    def worker_restarts(self) -> int:
        """How many workers the supervisor has replaced."""
        with suppress(OSError, ValueError):
            return int((self._path / WORKER_RESTARTS).read_text())
        return 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
