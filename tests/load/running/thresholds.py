"""What a run has to reach: `p99<50ms`, `errors<1%`, `rps>1000`, `get:p95<20ms`."""

import operator
import re
from collections.abc import Callable
from typing import NamedTuple

from tests.load.generator.job import Result, percentile
from tests.load.workload import MIX

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
FORM = re.compile(
    rf"(?:(?P<operation>{'|'.join(MIX)}):)?(?P<metric>p\d{{1,2}}(?:\.\d+)?|mean|max|errors|rps)"
    r"\s*(?P<comparison><=|>=|<|>)\s*(?P<limit>\d+(?:\.\d+)?)\s*(?P<unit>us|ms|s|%|)"
)
MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Threshold(NamedTuple):
    """`metric` is p50, p99.9, mean or max with a limit in ms; `errors` with one in % or as a number; or `rps`."""

    text: str
    operation: str | None
    metric: str
    comparison: str
    limit: float
    percent: bool


class Verdict(NamedTuple):
    """`value` is None where the run has none, for which no threshold holds."""

    threshold: Threshold
    value: float | None
    held: bool


def parse(text: str) -> Threshold:
    """Raises ValueError."""
    match = FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not a threshold such as p99<50ms, errors<1%, rps>1000 or get:p95<20ms "
            f"(metrics: p50 … p99.9, mean, max, errors, rps; operations: {', '.join(MIX)})"
        )
    metric, unit, limit = match["metric"], match["unit"], float(match["limit"])
    timed = metric not in ("errors", "rps")
    if timed and unit not in MS:
        raise ValueError(f"{text!r}: {metric} needs a unit: us, ms or s")
    if not timed and (unit in MS or (unit == "%" and metric == "rps")):
        raise ValueError(f"{text!r}: {metric} is not measured in {unit}")
    if timed:
        limit *= MS[unit]
    return Threshold(text.strip(), match["operation"], metric, match["comparison"], limit, unit == "%")


def check(threshold: Threshold, result: Result) -> Verdict:
    value = measured(threshold, result)
    return Verdict(threshold, value, value is not None and COMPARISONS[threshold.comparison](value, threshold.limit))


def measured(threshold: Threshold, result: Result) -> float | None:
    chosen = [one for one in result.operations if threshold.operation in (None, one.operation)]
    requests, errors = sum(one.requests for one in chosen), sum(one.errors for one in chosen)
    if not requests:
        return None
    if threshold.metric == "rps":
        return (requests - errors) / result.seconds
    if threshold.metric == "errors":
        return errors / requests * 100 if threshold.percent else errors
    histogram = result.histogram(threshold.operation)
    if not histogram.get_total_count():
        return None
    if threshold.metric == "mean":
        return histogram.get_mean_value() / 1e3
    return percentile(histogram, 100 if threshold.metric == "max" else float(threshold.metric[1:]))
