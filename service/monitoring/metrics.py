"""`/metrics`: what the service did, in Prometheus's text format, the figures of all workers together.

A request costs one dictionary look-up and a few additions here. prometheus-client's own multi-process mode writes to a
mapped file under a lock at each increment (2.8 µs a request, measured); instead each worker leaves a snapshot of its
numbers in a shared folder once a second, and whichever worker is asked adds them up.

Knows the numbers that the other parts keep. Must not be needed by any of them.
"""

import asyncio
import logging
import os
import platform
import resource
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

import msgspec
from litestar import Response, Router, route
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from service import __version__
from service.auth import Authenticator, HasKeyStats
from service.database import GROUP_SIZES, SQLSTATES, TIME_BOUNDS, Database
from service.http.asgi import GET_AND_HEAD
from service.http.capacity import REASONS, Capacity
from service.http.errors import AuthFailure
from service.monitoring.expired_records import EXPIRED_RECORDS, MAX_COUNTED, Expired, ExpiredRecords

log = logging.getLogger("service.metrics")

# Seconds. From what a cached get takes to the request deadline.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SNAPSHOT_S = 1.0
COMPLAIN_S = 60.0  # between two lines about a folder that is full
WORKER_RESTARTS = "worker_restarts"  # the supervisor's file in the shared folder
_BEGAN = time.time()
FAILURE_CLASSES = ("lost", *{sqlstate[:2]: None for sqlstate in SQLSTATES})
METHODS = frozenset({"", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # "": it was not even HTTP
_CONTENT_TYPE = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")  # Litestar adds it

RouteMethodStatus = tuple[str, str, int]
# Counts by bucket, not cumulative, the last for what is above all bounds; then the sum of seconds.
Histogram = list[float]


class Snapshot(msgspec.Struct):
    """One worker's numbers."""

    pid: int
    requests: list[tuple[RouteMethodStatus, Histogram]]
    counters: dict[str, float]
    gauges: dict[str, float]
    statements: dict[str, tuple[float, float]]  # by name: how many, seconds
    failures: dict[str, float]  # by SQLSTATE class
    rejected: dict[str, float]  # by reason
    auth_failures: dict[str, float]  # by reason
    waits: Histogram  # of statements, in queues
    times: Histogram  # of statements, at the database
    groups: Histogram  # of writes that shared a commit, by how many they were
    expired: Expired | None  # idempotency records to prune


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
        self._folder = folder
        self._expired = ExpiredRecords(database)
        self._requests: dict[RouteMethodStatus, Histogram] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next_complaint = 0.0

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
        histogram[bisect_left(BUCKETS, seconds)] += 1
        histogram[-1] += seconds

    def start(self) -> None:
        """Begins to leave snapshots, where there are other workers to read them."""
        if self._folder is not None:
            self._write()
            self._timer = asyncio.get_running_loop().call_later(SNAPSHOT_S, self.start)

    def stop(self) -> None:
        """Leaves a last snapshot: what a worker counted is not forgotten with it."""
        if self._timer is not None:
            self._timer.cancel()
            self._write()

    def exposition(self) -> bytes:
        """All workers' numbers in Prometheus's text format."""
        snapshots = self._snapshots()
        expired = _newest(snapshots)
        self._expired.refresh(expired, sum(map(_statements, snapshots)))
        registry = CollectorRegistry()
        registry.register(_Families(snapshots, expired, self._worker_restarts()))
        return generate_latest(registry)

    def _own(self) -> Snapshot:
        database, stats, capacity = self._database, self._database.stats, self._capacity
        keys = self._authenticator.key_stats() if isinstance(self._authenticator, HasKeyStats) else None
        return Snapshot(
            pid=os.getpid(),
            requests=list(self._requests.items()),
            counters={
                "connects": stats.connects,
                "lost": stats.lost,
                "unreachable": stats.unreachable,
                "retried": stats.retried,
                "hedged": stats.hedged,
                "cpu": time.process_time(),
            }
            | ({"refreshes": keys.refreshes, "failed_refreshes": keys.failed_refreshes} if keys else {}),
            gauges={
                "in_flight": capacity.in_flight,
                "waiting": capacity.turns.waiting,
                "connections": database.lanes,
                "limit": database.max_connections,
                "in_flight_calls": database.in_flight,
                "queued_calls": database.queued,
                "workers": 1,
                "http_connections": capacity.connections,
                "buffered": capacity.buffered,
                "resident": _resident_bytes(),
                "descriptors": _descriptors(),
                "max_descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
                "began": _BEGAN,
            }
            | ({} if keys is None or keys.age_s is None else {"keys_age": keys.age_s}),
            statements={name: (count, stats.seconds[name]) for name, count in stats.statements.items()},
            failures=dict(stats.failures),
            rejected=dict.fromkeys(REASONS, 0.0) | capacity.rejected,
            auth_failures={**dict.fromkeys(AuthFailure, 0.0), **self._auth_failures},
            waits=list(stats.waits),
            times=list(stats.times),
            groups=[float(count) for count in stats.groups],
            expired=self._expired.known(),
        )

    def _worker_restarts(self) -> int:
        """How many workers the supervisor has replaced."""
        with suppress(OSError, ValueError):
            return int((self._folder / WORKER_RESTARTS).read_text()) if self._folder else 0
        return 0

    def _write(self) -> None:
        assert self._folder is not None
        place = self._folder / f"{os.getpid()}.json"
        fresh = place.with_suffix(".new")
        try:
            fresh.write_bytes(msgspec.json.encode(self._own()))
            fresh.replace(place)
        except OSError as error:
            if time.monotonic() >= self._next_complaint:
                log.warning("%s: figures for the other workers cannot be written: %s", self._folder, error.strerror)
                self._next_complaint = time.monotonic() + COMPLAIN_S

    def _snapshots(self) -> list[Snapshot]:
        snapshots = [self._own()]
        for place in self._folder.glob("*.json") if self._folder else ():
            with suppress(OSError, msgspec.DecodeError):
                snapshot = msgspec.json.decode(place.read_bytes(), type=Snapshot)
                if snapshot.pid == os.getpid():
                    continue
                if not _alive(snapshot.pid):
                    snapshot.gauges, snapshot.expired = {}, None  # what it counted stays, what it held is gone
                snapshots.append(snapshot)
        return snapshots


class _Families(Collector):
    """Snapshots, added up, as prometheus-client's metric families."""

    def __init__(self, snapshots: list[Snapshot], expired: Expired | None, worker_restarts: int) -> None:
        self._snapshots = snapshots
        self._expired = expired
        self._worker_restarts = worker_restarts

    def collect(self) -> Iterable[Metric]:
        counters = _sum(snapshot.counters for snapshot in self._snapshots)
        gauges = _sum(snapshot.gauges for snapshot in self._snapshots)
        yield from self._requests()
        yield GaugeMetricFamily("tasks_http_requests_in_flight", "Requests being worked on.", gauges["in_flight"])
        yield GaugeMetricFamily(
            "tasks_http_requests_waiting", "Requests that wait for their caller's turn.", gauges["waiting"]
        )
        yield GaugeMetricFamily("tasks_http_connections", "Open HTTP connections.", gauges["http_connections"])
        yield GaugeMetricFamily(
            "tasks_http_buffered_bytes", "Bytes of bodies and of responses not read yet.", gauges["buffered"]
        )
        yield self._rejected()
        yield from self._statements()
        yield self._groups()
        yield from self._times()
        yield from self._authentication(counters, gauges)
        for name, text, value in (
            ("connections", "Connections to the database that are open.", gauges["connections"]),
            ("connections_limit", "The most connections there may be.", gauges["limit"]),
            ("calls_in_flight", "Statements sent and not answered.", gauges["in_flight_calls"]),
            (
                "calls_queued",
                "Statements that wait for a connection or for a write of the same row.",
                gauges["queued_calls"],
            ),
        ):
            yield GaugeMetricFamily(f"tasks_database_{name}", text, value)
        for name, text, value in (
            ("connects", "Attempts to connect to the database.", counters["connects"]),
            ("connects_failed", "Attempts to connect that failed.", counters["unreachable"]),
            ("connections_lost", "Connections that broke.", counters["lost"]),
            (
                "calls_retried",
                "Statements sent again: reads, and writes that certainly had changed nothing.",
                counters["retried"],
            ),
            ("calls_hedged", "Reads sent a second time, from behind a slow statement.", counters["hedged"]),
        ):
            yield CounterMetricFamily(f"tasks_database_{name}", text, value)
        build = GaugeMetricFamily("tasks_build_info", "1; the labels say what runs.", labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        yield GaugeMetricFamily("tasks_workers", "Processes that serve.", gauges["workers"])
        yield CounterMetricFamily(
            "tasks_worker_restarts", "Workers that died and were replaced.", self._worker_restarts
        )
        if self._expired is not None:
            yield GaugeMetricFamily(
                "tasks_idempotency_expired_records",
                f"Idempotency records to prune, counted up to {MAX_COUNTED}.",
                self._expired.records,
            )
            yield GaugeMetricFamily(
                "tasks_idempotency_expired_age_seconds",
                "Since the oldest idempotency record to prune was created; 0: there is none.",
                self._expired.age_s(),
            )
        yield CounterMetricFamily("process_cpu_seconds", "User and system CPU time, all workers.", counters["cpu"])
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory, all workers.", gauges["resident"])
        yield GaugeMetricFamily("process_open_fds", "Open file descriptors, all workers.", gauges["descriptors"])
        yield GaugeMetricFamily("process_max_fds", "The most there may be, all workers.", gauges["max_descriptors"])
        began = min(snapshot.gauges["began"] for snapshot in self._snapshots if snapshot.gauges)
        yield GaugeMetricFamily("process_start_time_seconds", "When the oldest worker began, Unix time.", began)

    def _requests(self) -> Iterable[Metric]:
        totals: dict[RouteMethodStatus, Histogram] = {}
        for snapshot in self._snapshots:
            for key, histogram in snapshot.requests:
                total = totals.setdefault(key, [0.0] * len(histogram))
                for index, value in enumerate(histogram):
                    total[index] += value
        family = HistogramMetricFamily(
            "tasks_http_request_duration_seconds",
            "How long requests took from when they began, by route, method and status.",
            labels=["route", "method", "status"],
        )
        for (template, method, status), (*counts, seconds) in sorted(totals.items()):
            family.add_metric([template, method, str(status)], _cumulative(BUCKETS, counts), seconds)
        yield family

    def _rejected(self) -> Metric:
        family = CounterMetricFamily(
            "tasks_http_requests_rejected",
            "Requests rejected: no place in flight (503), the caller's share taken (429), no memory for a body (503).",
            labels=["reason"],
        )
        for reason, count in sorted(_sum(snapshot.rejected for snapshot in self._snapshots).items()):
            family.add_metric([reason], count)
        return family

    def _times(self) -> Iterable[Metric]:
        for name, text, histograms in (
            (
                "lane_wait",
                "Time of statements in queues, before they were sent.",
                [one.waits for one in self._snapshots],
            ),
            ("time", "Time of statements from when they were sent.", [one.times for one in self._snapshots]),
        ):
            *counts, seconds = (sum(values) for values in zip(*histograms, strict=True))
            family = HistogramMetricFamily(f"tasks_database_{name}_seconds", text, labels=[])
            family.add_metric([], _cumulative(TIME_BOUNDS, counts), seconds)
            yield family

    def _authentication(self, counters: Mapping[str, float], gauges: Mapping[str, float]) -> Iterable[Metric]:
        failures = CounterMetricFamily(
            "tasks_auth_failures", "Requests whose caller was not let through.", labels=["reason"]
        )
        for reason, count in sorted(_sum(snapshot.auth_failures for snapshot in self._snapshots).items()):
            failures.add_metric([reason], count)
        yield failures
        if "refreshes" in counters:
            yield CounterMetricFamily(
                "tasks_auth_key_refreshes", "Fetches of the provider's keys.", counters["refreshes"]
            )
            yield CounterMetricFamily(
                "tasks_auth_key_refreshes_failed", "Those that failed.", counters["failed_refreshes"]
            )
        ages = [snapshot.gauges["keys_age"] for snapshot in self._snapshots if "keys_age" in snapshot.gauges]
        if ages:
            yield GaugeMetricFamily(
                "tasks_auth_keys_age_seconds", "Since the keys were last fetched; the oldest of all workers.", max(ages)
            )

    def _groups(self) -> Metric:
        *counts, writes = (sum(values) for values in zip(*(one.groups for one in self._snapshots), strict=True))
        family = HistogramMetricFamily(
            "tasks_database_group_size", "Writes that were committed together, by how many they were.", labels=[]
        )
        family.add_metric([], _cumulative(GROUP_SIZES, counts), writes)
        return family

    def _statements(self) -> Iterable[Metric]:
        number = CounterMetricFamily("tasks_database_statements", "Statements that ended.", labels=["statement"])
        seconds = CounterMetricFamily(
            "tasks_database_statement_seconds", "Time of statements, waiting included.", labels=["statement"]
        )
        counts = _sum({name: count for name, (count, _) in one.statements.items()} for one in self._snapshots)
        times = _sum({name: time for name, (_, time) in one.statements.items()} for one in self._snapshots)
        for name in sorted(counts):
            number.add_metric([name], counts[name])
            seconds.add_metric([name], times[name])
        failures = CounterMetricFamily(
            "tasks_database_failures",
            "Statements and connections that failed, by SQLSTATE class; lost: without one.",
            labels=["sqlstate_class"],
        )
        # Every class from the start, with 0: increase() does not see the step from no series to 1.
        counted = dict.fromkeys(FAILURE_CLASSES, 0.0) | _sum(snapshot.failures for snapshot in self._snapshots)
        for name, count in sorted(counted.items()):
            failures.add_metric([name], count)
        yield from (number, seconds, failures)


def router(metrics: Metrics) -> Router:
    """`/metrics`."""

    @route("/metrics", http_method=GET_AND_HEAD, sync_to_thread=False)
    def expose() -> Response[bytes]:
        """Prometheus's text format."""
        return Response(metrics.exposition(), media_type=_CONTENT_TYPE)

    return Router("/", route_handlers=[expose], tags=["operations"])


def _cumulative(bounds: Sequence[float], counts: Iterable[float]) -> list[tuple[str, float]]:
    """A histogram's buckets as Prometheus wants them, each with those below it."""
    return list(zip((*map(str, bounds), "+Inf"), accumulate(counts), strict=True))


def _sum(many: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in many:
        for name, value in one.items():
            total[name] = total.get(name, 0) + value
    return total


def _newest(snapshots: Iterable[Snapshot]) -> Expired | None:
    found = [snapshot.expired for snapshot in snapshots if snapshot.expired is not None]
    return max(found, key=lambda expired: expired.asked_at, default=None)


def _statements(snapshot: Snapshot) -> float:
    """How many statements there were because of somebody other than /metrics."""
    return sum(count for name, (count, _) in snapshot.statements.items() if name != EXPIRED_RECORDS.name)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


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
