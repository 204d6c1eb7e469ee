"""How the cost grows: with rows, with connections, with workers."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import msgspec
import psycopg

from service.operations.embedded import Embedded
from tests.load import closed_loop, database, targets
from tests.load.workload import Workload

TASKS_A_USER = 100  # as many in a small table as in a large one, so that a page is full and equally large in all
CONNECTIONS = (1, 8, 32, 128, 512)
WORKERS = (1, 2)


class Point(msgspec.Struct):
    """One operation at one size: the median of repeats, the least and the most, and CPU in µs."""

    axis: str  # rows, connections or workers
    value: int
    operation: str
    rps: float
    least: float
    most: float
    p99: float
    service_us: float
    postgres_us: float


def point(axis: str, value: int, samples: Sequence[closed_loop.Sample]) -> Point:
    def middle(name: str) -> float:
        return statistics.median(getattr(sample, name) or 0.0 for sample in samples)

    rps = [sample.rps for sample in samples]
    figures = {name: middle(name) for name in ("rps", "p99", "service_us", "postgres_us")}
    return Point(axis, value, samples[0].operation, least=min(rps), most=max(rps), **figures)


def rows(
    cluster: Embedded,
    sizes: Iterable[int],
    *,
    connections: int,
    database_connections: int,
    seconds: float,
    repeats: int,
    said: Callable[[closed_loop.Sample], None],
    together: bool = False,
) -> list[Point]:
    """get and a page of 50 in tables of these sizes, one database each, interleaved."""
    with ExitStack() as stack:
        up: dict[int, targets.Target] = {}
        for size in sizes:
            url = _new_database(cluster.url, f"rows_{size}")
            database.migrate(url)
            database.load(url, size // TASKS_A_USER, size, together=together)
            plan = targets.service(database_connections)._replace(name=f"{size:,} rows")
            [up[size]] = stack.enter_context(targets.running([plan], url))
        found: dict[tuple[str, int], list[closed_loop.Sample]] = {}
        for turn in range(repeats + 1):
            for operation in ("get", "list"):
                for size, target in up.items():
                    workload = Workload(size // TASKS_A_USER, size)
                    sample = closed_loop.measure(
                        target, operation, workload, cluster.pid, connections=connections, seconds=seconds, seed=turn
                    )
                    if turn:  # the first only brings the table into memory
                        said(sample)
                        found.setdefault((operation, size), []).append(sample)
    axis = "rows, a user's together" if together else "rows"
    return [point(axis, size, samples) for (_, size), samples in found.items()]


def connections(
    cluster: Embedded,
    workload: Workload,
    *,
    database_connections: int,
    seconds: float,
    repeats: int,
    said: Callable[[closed_loop.Sample], None],
) -> list[Point]:
    """get from 1 client to 512, at as many connections to the database as ever."""
    found: dict[int, list[closed_loop.Sample]] = {}
    with targets.running([targets.service(database_connections)], cluster.url) as [target]:
        for turn in range(repeats):
            for count in CONNECTIONS:
                sample = closed_loop.measure(
                    target, "get", workload, cluster.pid, connections=count, seconds=seconds, seed=turn
                )
                said(sample)
                found.setdefault(count, []).append(sample)
    return [point("connections", count, samples) for count, samples in found.items()]


def workers(
    cluster: Embedded,
    workload: Workload,
    *,
    connections: int,
    database_connections: int,
    seconds: float,
    repeats: int,
    said: Callable[[closed_loop.Sample], None],
) -> list[Point]:
    """A read and a write with one worker and with two."""
    plans = [targets.service(database_connections, count)._replace(name=str(count)) for count in WORKERS]
    found: dict[tuple[str, str], list[closed_loop.Sample]] = {}
    with targets.running(plans, cluster.url) as up:
        for turn in range(repeats):
            for operation in ("get", "create"):
                for target in up:
                    sample = closed_loop.measure(
                        target, operation, workload, cluster.pid, connections=connections, seconds=seconds, seed=turn
                    )
                    said(sample)
                    found.setdefault((target.name, operation), []).append(sample)
    return [point("workers", int(count), samples) for (count, _), samples in found.items()]


def _new_database(url: str, name: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return url.replace("/tasks?", f"/{name}?")
