"""A remote database: a round trip of 1 ms, commits of 3 ms. Peak rates, and the latency of other users while one user's
statements are slow or wait for a lock.
"""

import http.client
import threading
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import msgspec
import psycopg

from service.operations.embedded import Embedded
from tests.load import closed_loop, delaying_proxy, targets
from tests.load.generator import job as generator
from tests.load.generator.job import Job, percentile
from tests.load.targets import GO, SERVICE, Plan, Target
from tests.load.workload import Workload

ROUND_TRIP_S = 0.001
COMMIT = {
    "commit_delay": "3000",
    "commit_siblings": "0",
}  # µs before each flush of the WAL, even where no other session commits
CLIENTS = 64
STUCK = 10
SLOW_S = 0.3
MIX = {"get": 80.0, "create": 20.0}  # of what other users ask for
DISTURBED = (SERVICE, GO)

# The service's role in this database is not its owner, so that a policy can make the slow user's statements slow; the
# others pay a comparison for it.
ROLE = f"""
    CREATE ROLE app LOGIN;
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
    ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
    CREATE POLICY slow ON tasks USING (user_id <> 'slow' OR pg_sleep({SLOW_S}) IS NOT NULL);
    INSERT INTO users (id) VALUES ('slow'), ('stuck');
    INSERT INTO tasks (user_id, title) VALUES ('slow', 'Takes its time'), ('stuck', 'Held by another session');
"""


class Latency(msgspec.Struct):
    """In ms, from when each request was due."""

    p50: float
    p99: float
    p999: float


class Wait(msgspec.Struct):
    """Other users' gets and creates at a fixed rate during a disturbance (none, stuck or slow), and how many creates a
    second there are in a closed loop.
    """

    target: str
    disturbance: str
    gets: Latency
    creates: Latency
    creates_per_s: float


class Remote(msgspec.Struct):
    peaks: list[closed_loop.Sample]
    waits: list[Wait]


def measure(
    plans: Iterable[Plan],
    cluster: Embedded,
    workload: Workload,
    *,
    rate: float,
    seconds: float,
    repeats: int,
    said: Callable[[closed_loop.Sample | Wait], None],
) -> Remote:
    """`cluster` has COMMIT's settings and the data. Disturbances are measured on the targets of DISTURBED."""
    found = Remote([], [])
    with ExitStack() as stack:
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute(ROLE.encode())
            ids = dict(
                connection.execute("SELECT user_id, id FROM tasks WHERE user_id IN ('slow', 'stuck')").fetchall()
            )
        away = stack.enter_context(delaying_proxy.delayed(cluster.url, ROUND_TRIP_S))
        up = stack.enter_context(targets.running(plans, away.replace("//tasks@", "//app@")))
        for turn in range(repeats):
            for operation in ("get", "create"):
                for target in up:
                    sample = closed_loop.measure(
                        target, operation, workload, cluster.pid, connections=CLIENTS, seconds=seconds, seed=turn
                    )
                    said(sample)
                    found.peaks.append(sample)
        for turn in range(repeats):
            for target in (one for one in up if one.name in DISTURBED):
                for disturbance in ("none", "stuck", "slow"):
                    with _disturbed(disturbance, target, cluster.url, ids):
                        wait = _wait(target, disturbance, workload, rate, seconds, turn)
                    said(wait)
                    found.waits.append(wait)
    return found


def _wait(target: Target, disturbance: str, workload: Workload, rate: float, seconds: float, seed: int) -> Wait:
    rated = generator.run(Job(target.url, MIX, workload, seconds, rate, CLIENTS, seed))
    created = closed_loop.measure(target, "create", workload, None, connections=CLIENTS, seconds=seconds, seed=seed)
    if rated.failed or created.failed:
        raise RuntimeError(
            f"{target.name} answered errors to others ({disturbance}): {rated.outcomes}, {created.errors}"
        )

    def latency(operation: str) -> Latency:
        histogram = rated.histogram(operation)
        return Latency(*(percentile(histogram, share) or 0.0 for share in (50, 99, 99.9)))

    return Wait(target.name, disturbance, latency("get"), latency("create"), created.rps)


@contextmanager
def _disturbed(disturbance: str, target: Target, url: str, ids: dict[str, int]) -> Generator[None]:
    """Makes the disturbance for as long as it lasts."""
    over = threading.Event()
    address = urlsplit(target.url).netloc

    def ask(method: str, path: str, pause_s: float) -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        while not over.is_set():
            connection.request(method, path)
            connection.getresponse().read()  # 504 where it was stuck for longer than the service lets a statement
            over.wait(pause_s)
        connection.close()

    askers: list[threading.Thread] = []
    with psycopg.connect(url) as holder:  # left without commit: the row is let go at the end
        if disturbance == "stuck":
            holder.execute("SELECT FROM tasks WHERE id = %s FOR UPDATE", (ids["stuck"],))
            path = f"/api/stuck/tasks/{ids['stuck']}/complete"
            askers = [threading.Thread(target=ask, args=("PATCH", path, 0)) for _ in range(STUCK)]
        elif disturbance == "slow":
            askers = [threading.Thread(target=ask, args=("GET", f"/api/slow/tasks/{ids['slow']}", 1 - SLOW_S))]
        for asker in askers:
            asker.start()
        try:
            yield
        finally:
            over.set()
            holder.rollback()
            for asker in askers:
                asker.join()
