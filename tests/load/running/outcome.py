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

from tests.load.generator.job import NOT_SENT, Result, Second, succeeded
from tests.load.running.thresholds import Verdict

UNKNOWN = "A service that was running already: its settings, database and machine are not known to the harness."
BUSY = 0.8  # of a core: from here on the generator may be slower than the service
STARVED = 0.2  # of the time without a core that it needed
LAG_MS = 5.0
SLOW = "the service was slower than --rate, or --connections are too few."
BOUNDS = [float(f"{step}e{power}") for power in range(-2, 5) for step in (1, 1.5, 2, 3, 5, 7)]  # ms
PERCENTILES = (50, 90, 95, 99, 99.9)


class Latencies(msgspec.Struct, rename={name: f"{name}_ms" for name in ("mean", "max", "percentiles")}):
    """One operation, or all. In ms; None where nothing was timed. `percentiles` are named p50 and so on; None where
    there are too few requests to tell one from the maximum (p99.9 needs 1,000).
    """

    operation: str
    requests: int
    errors: int
    rps: float  # successes a second, those within the duration
    mean: float | None
    max: float | None
    percentiles: dict[str, float | None]


class Bar(msgspec.Struct, rename={"above": "above_ms", "to": "to_ms"}):
    """Latencies over `above` and up to `to`, in ms."""

    above: float
    to: float
    count: int


class Held(msgspec.Struct):
    """`value` in `unit`, or None for a reason: `missing`."""

    threshold: str
    value: float | None
    unit: str
    held: bool
    missing: str


class Generator(msgspec.Struct):
    """What generated the load. `busy_cores` is its CPU time; `starved_share` is the share of the time in which it could
    have run and got no core; `lag_p99_ms` is how late it was itself, in an open loop. None where not known.
    """

    machine: str
    python: str
    busy_cores: float
    starved_share: float | None
    lag_p99_ms: float | None

    def lines(self) -> dict[str, str]:
        """For people."""
        found = {"machine": self.machine, "python": self.python, "busy": f"{self.busy_cores:.2f} of a core"}
        if self.starved_share is not None:
            found["waited for a core"] = f"{self.starved_share * 100:.1f} % of the time"
        if self.lag_p99_ms is not None:
            found["lag"] = f"{self.lag_p99_ms:.2f} ms at its 99th percentile"
        return found


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
    generator: Generator
    seconds: float
    stopped: bool
    latencies: list[Latencies]
    outcomes: dict[str, int]
    warm_up: dict[str, int]  # outcomes of the warm-up, counted nowhere else
    dropped: int  # of the outcomes: requests that were due and never sent
    received_bytes: int
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
        load=f"{load} Stopped after {result.seconds:.2f} s." if result.stopped else load,
        options=options,
        generator=Generator(
            machine=f"{psutil.cpu_count()} cores, {platform.system()} {platform.release()}",
            python=platform.python_version(),
            busy_cores=result.busy,
            starved_share=result.starved,
            lag_p99_ms=None if result.lag_us is None else result.lag_us / 1e3,
        ),
        seconds=result.seconds,
        stopped=result.stopped,
        latencies=[_latencies(result, None), *(_latencies(result, one.operation) for one in result.operations)],
        outcomes=dict(sorted(result.outcomes.items())),
        warm_up=dict(sorted(result.warm_up.items())),
        dropped=result.outcomes[NOT_SENT],
        received_bytes=result.received_bytes,
        thresholds=[Held(one.threshold.text, one.value, one.threshold.unit, one.held, one.missing) for one in verdicts],
        warnings=warnings(result),
        over_time=result.over_time,
        bars=bars(histogram),
        histogram=histogram.encode().decode(),
        tasks=tasks,
    )


def _latencies(result: Result, operation: str | None) -> Latencies:
    chosen = [one for one in result.operations if operation in (None, one.operation)]
    requests, errors = sum(one.requests for one in chosen), sum(one.errors for one in chosen)
    timed = result.histogram(operation).get_total_count()
    percentiles = result.percentiles(PERCENTILES, operation)
    return Latencies(
        operation=operation or "all",
        requests=requests,
        errors=errors,
        rps=result.rps(operation),
        mean=result.mean_ms(operation),
        max=result.max_ms(operation),
        percentiles={
            f"p{share:g}": value if timed * (100 - share) >= 99.99 else None
            for share, value in zip(PERCENTILES, percentiles, strict=True)
        },
    )


def warnings(result: Result) -> list[str]:
    """What makes the figures say less than they seem to."""
    found: list[str] = []
    if result.busy > BUSY:
        found.append(
            f"The generator used {result.busy * 100:.0f} % of a core: it may have been the limit, not the service. "
            "Use several generators, or wrk for the peak."
        )
    if result.starved is not None and result.starved > STARVED:
        found.append(
            f"The generator waited for a core for {result.starved * 100:.0f} % of the time: its machine is overloaded. "
            "Latencies include that, and the service may be faster than this."
        )
    if result.lag_us is not None and result.lag_us / 1e3 > LAG_MS:
        found.append(
            f"1 % of the requests were sent {result.lag_us / 1e3:.0f} ms late or more, because the generator's machine "
            "was busy. Latencies include that."
        )
    if unsent := result.outcomes[NOT_SENT]:
        lost = {
            name: count
            for name, count in result.outcomes.items()
            if not name.isdecimal() and not name.startswith((NOT_SENT, "no response"))
        }
        found.append(
            f"{unsent:,} requests were never sent, because no connection was free: "
            + (f"connections failed ({_counted(lost)})." if lost else SLOW)
        )
    if failed := {name: count for name, count in result.warm_up.items() if not succeeded(name)}:
        total = sum(result.warm_up.values())
        found.append(f"{sum(failed.values()):,} of {total:,} requests of the warm-up failed ({_counted(failed)}).")
    if result.outcomes["429"] or result.warm_up.get("429"):
        found.append(
            "The service limits requests (429). Where the limit is one of each user, more users (--users, --tokens) "
            "or fewer --connections keep below it."
        )
    if result.stopped:
        found.append("The run was stopped before its time.")
    return found


def _counted(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in sorted(outcomes.items()))


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
    _write(file, list(Second.__struct_encode_fields__), (msgspec.structs.astuple(one) for one in outcome.over_time))
    other = file.with_name(f"{file.stem}-histogram{file.suffix}")
    _write(other, list(Bar.__struct_encode_fields__), (msgspec.structs.astuple(bar) for bar in outcome.bars))
    return other


def _write(file: Path, header: list[str], rows: object) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)  # pyright: ignore[reportArgumentType]
