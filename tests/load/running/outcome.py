"""What a run has found: the struct that is its JSON file, and the CSV made of it."""

import csv
import platform
from bisect import bisect_left
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec
import psutil
from hdrh.histogram import HdrHistogram

from tests.load.generator.job import NOT_SENT, Result, Second, percentile
from tests.load.running.thresholds import Verdict

UNKNOWN = "A service that was running already: its settings, database and machine are not known to the harness."
BUSY = 0.8  # of a core: from here on the generator may be slower than the service
LAG_MS = 5.0
BOUNDS = [float(f"{step}e{power}") for power in range(-2, 5) for step in (1, 1.5, 2, 3, 5, 7)]  # ms
PERCENTILES = (50, 90, 95, 99, 99.9)


class Latencies(msgspec.Struct):
    """One operation, or all. In ms; None where nothing was timed. `percentiles` are named p50 and so on."""

    operation: str
    requests: int
    errors: int
    rps: float  # successes a second
    mean: float | None
    max: float | None
    percentiles: dict[str, float | None]


class Bar(msgspec.Struct):
    """Latencies over `above` and up to `to`, in ms."""

    above: float
    to: float
    count: int


class Held(msgspec.Struct):
    threshold: str
    value: float | None
    held: bool


class Tasks(msgspec.Struct):
    """What the run did to the accounts. `left` is None where the tasks were to stay."""

    accounts: list[str]
    made_before: int
    deleted: int = 0
    left: int | None = 0


class Outcome(msgspec.Struct):
    made: str
    run: str
    url: str
    service: str
    load: str
    options: dict[str, str]
    generator: dict[str, str]
    seconds: float
    stopped: bool
    latencies: list[Latencies]
    outcomes: dict[str, int]
    thresholds: list[Held]
    warnings: list[str]
    over_time: list[Second]
    bars: list[Bar]
    histogram: str  # HdrHistogram's encoding, µs, all operations
    tasks: Tasks


def summarize(
    result: Result, verdicts: list[Verdict], *, run: str, url: str, load: str, options: dict[str, str], tasks: Tasks
) -> Outcome:
    histogram = result.histogram()
    return Outcome(
        made=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        run=run,
        url=url,
        service=UNKNOWN,
        load=load,
        options=options,
        generator={
            "machine": f"{psutil.cpu_count()} cores, {platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "busy": f"{result.busy:.2f} of a core",
            "lag": f"{result.lag_us / 1e3:.2f} ms at its 99th percentile",
        },
        seconds=result.seconds,
        stopped=result.stopped,
        latencies=[_latencies(result, None), *(_latencies(result, one.operation) for one in result.operations)],
        outcomes=dict(sorted(result.outcomes.items())),
        thresholds=[Held(one.threshold.text, one.value, one.held) for one in verdicts],
        warnings=warnings(result),
        over_time=result.over_time,
        bars=bars(histogram),
        histogram=histogram.encode().decode(),
        tasks=tasks,
    )


def _latencies(result: Result, operation: str | None) -> Latencies:
    chosen = [one for one in result.operations if operation in (None, one.operation)]
    requests, errors = sum(one.requests for one in chosen), sum(one.errors for one in chosen)
    histogram = result.histogram(operation)
    timed = histogram.get_total_count() > 0
    return Latencies(
        operation=operation or "all",
        requests=requests,
        errors=errors,
        rps=(requests - errors) / result.seconds,
        mean=histogram.get_mean_value() / 1e3 if timed else None,
        max=percentile(histogram, 100),
        percentiles={f"p{share:g}": percentile(histogram, share) for share in PERCENTILES},
    )


def warnings(result: Result) -> list[str]:
    """What makes the figures say less than they seem to."""
    found: list[str] = []
    if result.busy > BUSY:
        found.append(
            f"The generator used {result.busy * 100:.0f} % of a core: it may have been the limit, not the service. "
            "Use several generators, or wrk for the peak."
        )
    if result.lag_us / 1e3 > LAG_MS:
        found.append(
            f"The generator was late by up to {result.lag_us / 1e3:.0f} ms (99th percentile): its machine was busy, "
            "and latencies include that."
        )
    if unsent := result.outcomes[NOT_SENT]:
        found.append(
            f"{unsent:,} requests were never sent, because no connection was free: the service was slower than --rate, "
            "or --connections are too few."
        )
    if result.stopped:
        found.append("The run was stopped before its time.")
    return found


def bars(histogram: HdrHistogram) -> list[Bar]:
    """From the first to the last that holds something."""
    counts = [0] * (len(BOUNDS) + 1)
    for item in histogram.get_recorded_iterator():
        counts[bisect_left(BOUNDS, item.value_iterated_to / 1e3)] += item.count_at_value_iterated_to
    found = [Bar(*edges, count) for edges, count in zip(pairwise([0.0, *BOUNDS, 3.6e6]), counts, strict=True)]
    filled = [place for place, bar in enumerate(found) if bar.count]
    return found[filled[0] : filled[-1] + 1] if filled else []


def write_json(outcome: Outcome, file: Path) -> None:
    file.write_bytes(msgspec.json.format(msgspec.json.encode(outcome)) + b"\n")


def write_csv(outcome: Outcome, file: Path) -> Path:
    """A line for each second and operation; and, in FILE-histogram, one for each bar. Returns the second file."""
    _write(file, list(Second.__struct_fields__), (msgspec.structs.astuple(one) for one in outcome.over_time))
    other = file.with_name(f"{file.stem}-histogram{file.suffix}")
    _write(other, ["above_ms", "to_ms", "count"], (msgspec.structs.astuple(bar) for bar in outcome.bars))
    return other


def _write(file: Path, header: list[str], rows: object) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)  # pyright: ignore[reportArgumentType]
