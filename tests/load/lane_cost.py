"""What a call costs between a query function and libpq: `python -m tests.load.lane_cost DATABASE_URL`.

Callers in a closed loop read one task each; the CPU time of this process is divided by their calls.
"""

import argparse
import asyncio
import itertools
import time

import uvloop

from service.database import Database
from service.http.conditional import NO_PRECONDITIONS
from service.tasks.queries import STATEMENTS, Queries
from service.tasks.schemas import TaskCreate


async def measure(url: str, callers: int, seconds: float, *, prepare: bool = True) -> tuple[float, float]:
    """Calls a second, and µs of CPU a call."""
    database = Database(url, connections=4, prepare=prepare, verify=STATEMENTS)
    await database.open()
    queries = Queries(database)
    task = await queries.create("lane-cost", TaskCreate("a task"))
    await queries.delete("lane-cost", task.id, NO_PRECONDITIONS)
    done = itertools.count()
    end = time.monotonic() + seconds

    async def call() -> None:
        while time.monotonic() < end:
            for _ in range(20):
                await queries.get("lane-cost", task.id)
                next(done)

    cpu, start = time.process_time(), time.monotonic()
    await asyncio.gather(*(call() for _ in range(callers)))
    cpu, elapsed = time.process_time() - cpu, time.monotonic() - start
    calls = next(done)
    await database.close()
    return calls / elapsed, cpu / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    for _ in range(arguments.repeats):
        rps, us = uvloop.run(measure(arguments.url, arguments.callers, arguments.seconds))
        print(f"{rps:9.0f} calls a second {us:6.2f} µs of CPU a call")


if __name__ == "__main__":
    main()
