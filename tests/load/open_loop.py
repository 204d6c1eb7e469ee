"""Latency at fixed rates: what the load generator found, repeats put together."""

import msgspec

from tests.load.generator import job as generator
from tests.load.generator.job import Job, Result, percentile
from tests.load.workload import Workload, weights

REPEATS = 2  # of each rate


class Rated(msgspec.Struct):
    """The open loop at one rate. Latencies in ms, from when each request was due."""

    target: str
    operation: str
    rate: float
    answered: float  # a second
    p50: float
    p90: float
    p99: float
    p999: float
    lag_ms: float  # of the generator, at its 99th percentile
    busy: float  # the generator's share of a core
    histogram: str  # HdrHistogram, of µs


def measure(target: str, url: str, operation: str, workload: Workload, rate: float, seconds: float) -> Rated:
    """Raises RuntimeError where a response was an error. Requests that are only late are none."""
    results = [
        generator.run(Job(url, weights(operation), workload, seconds, rate, seed=turn)) for turn in range(REPEATS)
    ]
    return merged(target, operation, rate, results)


def merged(target: str, operation: str, rate: float, results: list[Result]) -> Rated:
    if failed := sum(one.failed for one in results):
        raise RuntimeError(f"{target} answered {failed} requests with errors at {rate:,.0f}/s: {results[0].outcomes}")
    histogram = results[0].histogram()
    for one in results[1:]:
        histogram.add(one.histogram())
    p50, p90, p99, p999 = (percentile(histogram, share) or 0.0 for share in (50, 90, 99, 99.9))
    return Rated(
        *(target, operation, rate, sum(one.responses for one in results) / sum(one.seconds for one in results)),
        *(p50, p90, p99, p999),
        lag_ms=max(one.lag_us or 0 for one in results) / 1e3,
        busy=max(one.busy for one in results),
        histogram=histogram.encode().decode(),
    )
