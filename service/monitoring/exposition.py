"""Snapshots of all workers, added up, in Prometheus's text format."""

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service import __version__
from service.database import GROUP_SIZES, SQLSTATES, TIME_BOUNDS
from service.monitoring.expired_records import MAX_COUNTED, Expired
from service.monitoring.snapshots import Counters, Gauges, Histogram, RouteMethodStatus, Snapshot

# Seconds. From what a cached get takes to the request deadline.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FAILURE_CLASSES = ("lost", *{sqlstate[:2]: None for sqlstate in SQLSTATES})

Numbers = TypeVar("Numbers", Counters, Gauges)


def exposition(snapshots: Sequence[Snapshot], expired: Expired | None, worker_restarts: int) -> bytes:
    """`snapshots` has at least one of a worker that lives."""
    registry = CollectorRegistry()
    registry.register(_Families(snapshots, expired, worker_restarts))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, snapshots: Sequence[Snapshot], expired: Expired | None, worker_restarts: int) -> None:
        self._snapshots = snapshots
        self._counters = _added([snapshot.counters for snapshot in snapshots])
        self._gauges = _added([snapshot.gauges for snapshot in snapshots if snapshot.gauges is not None])
        self._expired = expired
        self._worker_restarts = worker_restarts

    def collect(self) -> Iterator[Metric]:
        yield from self._http()
        yield from self._authentication()
        yield from self._database()
        yield from self._statements()
        yield from self._expired_records()
        yield from self._processes()

    def _http(self) -> Iterator[Metric]:
        totals: dict[RouteMethodStatus, Histogram] = {}
        for snapshot in self._snapshots:
            for key, histogram in snapshot.requests:
                total = totals.setdefault(key, [0.0] * len(histogram))
                for index, value in enumerate(histogram):
                    total[index] += value
        durations = HistogramMetricFamily(
            "tasks_http_request_duration_seconds",
            "How long requests took from when they began, by route, method and status.",
            labels=["route", "method", "status"],
        )
        for (template, method, status), (*counts, seconds) in sorted(totals.items()):
            durations.add_metric([template, method, str(status)], _cumulative(BUCKETS, counts), seconds)
        yield durations
        gauges = self._gauges
        yield GaugeMetricFamily("tasks_http_requests_in_flight", "Requests being worked on.", gauges.requests_in_flight)
        yield GaugeMetricFamily(
            "tasks_http_requests_waiting", "Requests that wait for their caller's turn.", gauges.requests_waiting
        )
        yield GaugeMetricFamily("tasks_http_connections", "Open HTTP connections.", gauges.http_connections)
        yield GaugeMetricFamily(
            "tasks_http_buffered_bytes", "Bytes of bodies and of responses not read yet.", gauges.buffered_bytes
        )
        yield _labelled(
            "tasks_http_requests_rejected",
            "Requests rejected: no place in flight (503), the caller's share taken (429), no memory for a body (503).",
            "reason",
            _sum(snapshot.rejected for snapshot in self._snapshots),
        )

    def _authentication(self) -> Iterator[Metric]:
        yield _labelled(
            "tasks_auth_failures",
            "Requests whose caller was not let through.",
            "reason",
            _sum(snapshot.auth_failures for snapshot in self._snapshots),
        )
        keys = [snapshot.keys for snapshot in self._snapshots if snapshot.keys is not None]
        if not keys:
            return
        yield CounterMetricFamily(
            "tasks_auth_key_refreshes", "Fetches of the provider's keys.", sum(one.refreshes for one in keys)
        )
        yield CounterMetricFamily(
            "tasks_auth_key_refreshes_failed", "Those that failed.", sum(one.failed_refreshes for one in keys)
        )
        living = [snapshot.keys for snapshot in self._snapshots if snapshot.keys and snapshot.gauges]
        if ages := [one.age_s for one in living if one.age_s is not None]:
            yield GaugeMetricFamily(
                "tasks_auth_keys_age_seconds", "Since the keys were last fetched; the oldest of all workers.", max(ages)
            )

    def _database(self) -> Iterator[Metric]:
        gauges, counters = self._gauges, self._counters
        for name, text, value in (
            ("connections", "Connections to the database that are open.", gauges.database_connections),
            ("connections_limit", "The most connections there may be.", gauges.max_database_connections),
            ("calls_in_flight", "Statements sent and not answered.", gauges.calls_in_flight),
            (
                "calls_queued",
                "Statements that wait for a connection or for a write of the same row.",
                gauges.calls_queued,
            ),
        ):
            yield GaugeMetricFamily(f"tasks_database_{name}", text, value)
        for name, text, value in (
            ("connects", "Attempts to connect to the database.", counters.connects),
            ("connects_failed", "Attempts to connect that failed.", counters.connects_failed),
            ("connections_lost", "Connections that broke.", counters.connections_lost),
            (
                "calls_retried",
                "Statements sent again: reads, and writes that certainly had changed nothing.",
                counters.calls_retried,
            ),
            ("calls_hedged", "Reads sent a second time, from behind a slow statement.", counters.calls_hedged),
        ):
            yield CounterMetricFamily(f"tasks_database_{name}", text, value)

    def _statements(self) -> Iterator[Metric]:
        yield _labelled(
            "tasks_database_statements",
            "Statements that ended.",
            "statement",
            _sum({name: time.count for name, time in one.statements.items()} for one in self._snapshots),
        )
        yield _labelled(
            "tasks_database_statement_seconds",
            "Time of statements, waiting included.",
            "statement",
            _sum({name: time.seconds for name, time in one.statements.items()} for one in self._snapshots),
        )
        yield _labelled(
            "tasks_database_failures",
            "Statements and connections that failed, by SQLSTATE class; lost: without one.",
            "sqlstate_class",
            # Every class from the start, with 0: increase() does not see the step from no series to 1.
            dict.fromkeys(FAILURE_CLASSES, 0.0) | _sum(snapshot.failures for snapshot in self._snapshots),
        )
        yield _histogram(
            "tasks_database_group_size",
            "Writes that were committed together, by how many they were.",
            GROUP_SIZES,
            [snapshot.groups for snapshot in self._snapshots],
        )
        yield _histogram(
            "tasks_database_lane_wait_seconds",
            "Time of statements in queues, before they were sent.",
            TIME_BOUNDS,
            [snapshot.waits for snapshot in self._snapshots],
        )
        yield _histogram(
            "tasks_database_time_seconds",
            "Time of statements from when they were sent.",
            TIME_BOUNDS,
            [snapshot.times for snapshot in self._snapshots],
        )

    def _expired_records(self) -> Iterator[Metric]:
        if self._expired is not None and self._expired.records is not None:
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

    def _processes(self) -> Iterator[Metric]:
        gauges = self._gauges
        living = [snapshot for snapshot in self._snapshots if snapshot.gauges is not None]
        build = GaugeMetricFamily("tasks_build_info", "1; the labels say what runs.", labels=["version", "python"])
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        yield GaugeMetricFamily("tasks_workers", "Processes that serve.", len(living))
        yield CounterMetricFamily(
            "tasks_worker_restarts", "Workers that died and were replaced.", self._worker_restarts
        )
        yield CounterMetricFamily(
            "process_cpu_seconds", "User and system CPU time, all workers.", self._counters.cpu_seconds
        )
        yield GaugeMetricFamily("process_resident_memory_bytes", "Resident memory, all workers.", gauges.resident_bytes)
        yield GaugeMetricFamily("process_open_fds", "Open file descriptors, all workers.", gauges.descriptors)
        yield GaugeMetricFamily("process_max_fds", "The most there may be, all workers.", gauges.max_descriptors)
        began = min(snapshot.began for snapshot in living)
        yield GaugeMetricFamily("process_start_time_seconds", "When the oldest worker began, Unix time.", began)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A counter for each value of one label."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in sorted(values.items()):
        family.add_metric([value], count)
    return family


def _histogram(name: str, text: str, bounds: Sequence[float], many: Sequence[Histogram]) -> Metric:
    *counts, total = (sum(values) for values in zip(*many, strict=True))
    family = HistogramMetricFamily(name, text, labels=[])
    family.add_metric([], _cumulative(bounds, counts), total)
    return family


def _cumulative(bounds: Sequence[float], counts: Iterable[float]) -> list[tuple[str, float]]:
    """A histogram's buckets as Prometheus wants them, each with those below it."""
    return list(zip((*map(str, bounds), "+Inf"), accumulate(counts), strict=True))


def _added(many: Sequence[Numbers]) -> Numbers:
    """Field by field."""
    return type(many[0])(*map(sum, zip(*map(msgspec.structs.astuple, many), strict=True)))


def _sum(many: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for one in many:
        for name, value in one.items():
            total[name] = total.get(name, 0) + value
    return total
