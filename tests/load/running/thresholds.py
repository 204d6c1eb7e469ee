"""What a run has to reach: `p99<50ms`, `errors<1%`, `rps>1000`, `get:p95<20ms`."""

import operator
import re
from collections.abc import Callable
from typing import NamedTuple

from tests.load.generator.job import Result
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
    """`metric` is p50, p99.9, mean or max with a limit in ms; `errors` with one in % or as a count; or `rps`, successes
    a second.
    """

    text: str
    operation: str | None
    metric: str
    comparison: str
    limit: float
    percent: bool

    @property
    def unit(self) -> str:
        """Of the metric."""
        if self.metric == "errors":
            return "%" if self.percent else "errors"
        return "/s" if self.metric == "rps" else "ms"


class Verdict(NamedTuple):
    """`value` is None where the run has none, for which no threshold holds; `missing` says why it has none."""

    threshold: Threshold
    value: float | None
    held: bool
    missing: str = ""


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
    if metric == "errors" and unit != "%" and not limit.is_integer():
        raise ValueError(f"{text!r}: without % it is a number of errors, which is whole; {limit * 100:g}% is a share")
    if timed:
        limit *= MS[unit]
    return Threshold(text.strip(), match["operation"], metric, match["comparison"], limit, unit == "%")


def check(threshold: Threshold, result: Result) -> Verdict:
    value = measured(threshold, result)
    if value is None:
        asked = any(one.requests for one in result.operations if threshold.operation in (None, one.operation))
        return Verdict(threshold, None, False, "nothing was timed" if asked else "no requests")
    return Verdict(threshold, value, COMPARISONS[threshold.comparison](value, threshold.limit))


def measured(threshold: Threshold, result: Result) -> float | None:
    chosen = [one for one in result.operations if threshold.operation in (None, one.operation)]
    requests, errors = sum(one.requests for one in chosen), sum(one.errors for one in chosen)
    if not requests:
        return None
    if threshold.metric == "rps":
        return result.rps(threshold.operation)
    if threshold.metric == "errors":
        return errors / requests * 100 if threshold.percent else errors
    if threshold.metric == "mean":
        return result.mean_ms(threshold.operation)
    if threshold.metric == "max":
        return result.max_ms(threshold.operation)
    return result.percentiles([float(threshold.metric[1:])], threshold.operation)[0]
