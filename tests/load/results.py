"""What a run has found: the struct that is its JSON file, and the tables made of it."""

import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import psutil

from tests.load.ceiling import Ceiling
from tests.load.closed_loop import Sample
from tests.load.remote import Remote
from tests.load.scale import Point
from tests.load.stages import Baseline, Stages
from tests.load.targets import FASTAPI, GO, RUST

LIBRARIES = (
    "litestar",
    "uvicorn",
    "uvloop",
    "httptools",
    "msgspec",
    "psycopg",
    "fastapi",
    "sqlmodel",
    "asyncpg",
)


class Rated(msgspec.Struct):
    """The open loop at one rate, repeats put together. Latencies in ms, from when each request was due."""

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


class Run(msgspec.Struct):
    made: str
    options: dict[str, Any]
    machine: dict[str, str]
    postgres: dict[str, str] = {}
    closed_loop: list[Sample] = []
    ceilings: list[Ceiling] = []
    open_loop: list[Rated] = []
    stages: list[Stages] = []
    baselines: list[Baseline] = []
    scale: list[Point] = []
    remote: Remote | None = None


class Table(msgspec.Struct):
    """The first `texts` columns are text, the others figures."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1

    def text(self) -> str:
        """For a terminal: aligned, however wide."""
        every = [self.header, *self.rows]
        widths = [max(len(row[column]) for row in every) for column in range(len(self.header))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < self.texts else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in every
        ]
        return f"{self.title}\n{self.note}\n\n" + "\n".join(line.rstrip() for line in lines)

    def markdown(self) -> str:
        rule = ["---"] * self.texts + ["--:"] * (len(self.header) - self.texts)
        lines = [" | ".join(cells) for cells in (self.header, rule, *self.rows)]
        return f"### {self.title}\n\n{self.note}\n\n" + "".join(f"| {line} |\n" for line in lines)


def new(options: dict[str, Any]) -> Run:
    return Run(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), options, machine())


def read(file: Path) -> Run:
    """Raises msgspec.ValidationError for what is not a run of this harness."""
    return msgspec.json.decode(file.read_bytes(), type=Run)


def write(run: Run, folder: Path) -> Path:
    file = folder / "run.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    return file


def machine() -> dict[str, str]:
    """What the figures depend on."""
    model = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    return {
        "processor": f"{psutil.cpu_count()} x {model.partition(':')[2].strip() or platform.processor()}",
        "memory": f"{psutil.virtual_memory().total >> 30} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "go": _first_line("go", "version").removeprefix("go version "),
        "rust": _first_line("rustc", "--version"),
        "bun": _first_line("bun", "--version"),
        "wrk": _first_line("wrk", "-v").partition(" Copyright")[0],
        **{name: version(name) for name in LIBRARIES},
    }


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return "missing"
    return (done.stdout or done.stderr).partition("\n")[0]


def names(items: Iterable[Any], name: str) -> list[Any]:
    """The different values of a field, in the order in which they first come."""
    return list(dict.fromkeys(getattr(item, name) for item in items))


def middle(samples: Iterable[Any], name: str) -> float | None:
    """The median of a figure; None where there is none."""
    values = [value for sample in samples if (value := getattr(sample, name)) is not None]
    return statistics.median(values) if values else None


def of(run: Run, target: str, operation: str) -> list[Sample]:
    return [sample for sample in run.closed_loop if (sample.target, sample.operation) == (target, operation)]


def figure(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def tables(run: Run) -> list[Table]:
    """Every table that the run has figures for."""
    made = (_closed_loop, _ceilings, _open_loop, _stages, _baselines, _scale, _remote_peaks, _remote_waits)
    return [table for make in made if (table := make(run)).rows]


def _closed_loop(run: Run) -> Table:
    rows: list[list[str]] = []
    for operation in names(run.closed_loop, "operation"):
        for target in names(run.closed_loop, "target"):
            samples = of(run, target, operation)
            rps = middle(samples, "rps")
            if rps is None:
                continue
            rivals = [middle(of(run, peer, operation), "rps") for peer in (RUST, GO, FASTAPI)]
            shares = [rps / rival if rival else None for rival in rivals]
            every = [sample.rps for sample in samples]
            rows.append(
                [
                    *(operation, target, figure(rps), f"{min(every):,.0f} to {max(every):,.0f}"),
                    *(figure(share, 2) for share in shares),
                    *(figure(middle(samples, name), 1) for name in ("p50", "p90", "p99", "p999")),
                    *(
                        figure(middle(samples, name))
                        for name in ("service_us", "postgres_us", "largest_mb", "together_mb")
                    ),
                ]
            )
    return Table(
        "Peak: closed loop",
        f"wrk keeps {run.options.get('connections')} requests in flight. Interleaved runs: the median, then the least "
        "and the most. Latencies in ms. CPU in µs a request, of the target's processes and of PostgreSQL's. Resident "
        "memory in MB, of the largest process and of all together.",
        [
            *("", "", "requests/s", "least to most", "of Rust", "of Go", "of FastAPI", "p50", "p90", "p99", "p99.9"),
            *("CPU µs", "PG µs", "largest MB", "all MB"),
        ],
        rows,
        texts=2,
    )


def _ceilings(run: Run) -> Table:
    rows: list[list[str]] = []
    for operation in names(run.ceilings, "operation"):
        single, piped = (
            next(one for one in run.ceilings if (one.operation, one.pipelined) == (operation, pipelined))
            for pipelined in (False, True)
        )
        rows.append(
            [operation, figure(single.rps), figure(single.postgres_us), figure(piped.rps), figure(piped.postgres_us)]
        )
    return Table(
        "PostgreSQL's own ceiling",
        "pgbench runs the same statements with as many connections and no service: one at a time on each, and "
        "pipelined, each statement its own transaction.",
        ["", "statements/s", "PG µs", "pipelined/s", "PG µs"],
        rows,
    )


def _open_loop(run: Run) -> Table:
    return Table(
        "Latency against rate: open loop",
        "Requests come at a fixed rate, whether or not those before are answered; each latency (ms) counts from the "
        "moment the request was due. `lag` is the generator's own lateness at its 99th percentile, `busy` its share of "
        "a core.",
        ["", "", "requests/s due", "answered/s", "p50", "p90", "p99", "p99.9", "lag", "busy"],
        [
            [
                *(one.operation, one.target, figure(one.rate), figure(one.answered)),
                *(figure(value, 2) for value in (one.p50, one.p90, one.p99, one.p999, one.lag_ms, one.busy)),
            ]
            for one in run.open_loop
        ],
        texts=2,
    )


STAGES = {
    "http": "HTTP server",
    "routing": "routing",
    "handler": "handler",
    "lane": "lane",
    "rows": "rows → structs",
    "encode": "encode",
    "unexplained": "unexplained",
    "service": "the service",
    "postgres": "PostgreSQL",
}


def _stages(run: Run) -> Table:
    return Table(
        "What a request costs, stage by stage",
        "µs of CPU, one worker. Each stage is the difference of two measurements that differ in it, so `unexplained` "
        "is what the whole costs beyond the sum of its parts.",
        ["", *STAGES.values()],
        [[one.operation, *(figure(getattr(one, name), 1) for name in STAGES)] for one in run.stages],
    )


def _baselines(run: Run) -> Table:
    return Table(
        "Baselines",
        "A constant answer of a task's size, one worker.",
        ["", "requests/s", "CPU µs"],
        [[one.name, figure(one.rps), figure(one.us, 1)] for one in run.baselines],
    )


def _scale(run: Run) -> Table:
    return Table(
        "As work grows",
        "The service alone. The median, then the least and the most; p99 in ms, CPU in µs a request.",
        ["", "", "", "requests/s", "least to most", "p99", "CPU µs", "PG µs"],
        [
            [
                *(one.operation, one.axis, f"{one.value:,}", figure(one.rps), f"{one.least:,.0f} to {one.most:,.0f}"),
                *(figure(one.p99, 1), figure(one.service_us), figure(one.postgres_us)),
            ]
            for one in run.scale
        ],
        texts=3,
    )


def _remote_peaks(run: Run) -> Table:
    peaks = run.remote.peaks if run.remote else []
    rows: list[list[str]] = []
    for operation in names(peaks, "operation"):
        for target in names(peaks, "target"):
            samples = [one for one in peaks if (one.target, one.operation) == (target, operation)]
            rps = [one.rps for one in samples]
            peer = middle([one for one in peaks if (one.target, one.operation) == (GO, operation)], "rps")
            rows.append(
                [
                    *(operation, target, figure(statistics.median(rps)), f"{min(rps):,.0f} to {max(rps):,.0f}"),
                    *(figure(statistics.median(rps) / peer if peer else None, 2), figure(middle(samples, "p50"), 1)),
                    *(figure(middle(samples, "p99"), 1), figure(middle(samples, "service_us"))),
                ]
            )
    return Table(
        "Remote database",
        "A round trip of 1 ms and commits of 3 ms, 64 clients.",
        ["", "", "requests/s", "least to most", "of Go", "p50", "p99", "CPU µs"],
        rows,
        texts=2,
    )


def _remote_waits(run: Run) -> Table:
    waits = run.remote.waits if run.remote else []
    rows: list[list[str]] = []
    for target in names(waits, "target"):
        for disturbance in names(waits, "disturbance"):
            p50, p99, p999, creates = (
                middle([one for one in waits if (one.target, one.disturbance) == (target, disturbance)], name)
                for name in ("p50", "p99", "p999", "creates")
            )
            quiet = middle([one for one in waits if (one.target, one.disturbance) == (target, "none")], "p99")
            rows.append(
                [
                    *(target, disturbance, figure(p50, 1), figure(p99, 1), figure(p999, 1)),
                    *(figure(p99 / quiet if p99 and quiet else None, 2), figure(creates)),
                ]
            )
    return Table(
        "Beside a stuck row and a slow statement",
        "What other users' gets take at a fixed rate, in ms: undisturbed, while ten writers wait for a row that "
        "another session holds locked, and with a statement of 300 ms every second; and other users' creates, closed "
        "loop.",
        ["", "disturbance", "p50", "p99", "p99.9", "p99 of undisturbed", "creates/s"],
        rows,
        texts=2,
    )


def compared(old: Run, new: Run) -> Table:
    """Two runs side by side. What lies within the spread of both runs' repeats is noise, and said to be."""
    rows: list[list[str]] = []
    for operation in names(new.closed_loop, "operation"):
        for target in names(new.closed_loop, "target"):
            before, after = of(old, target, operation), of(new, target, operation)
            if not before or not after:
                continue
            rows.append([operation, target])
            for name in ("rps", "p99", "service_us", "postgres_us"):
                rows[-1] += _change(before, after, name)
    return Table(
        f"{old.made} → {new.made}",
        "Medians of the repeats, and the change; `≈` where the repeats of the two runs overlap: it may be noise.",
        [
            "",
            "",
            *(f"{name}{part}" for name in ("requests/s", "p99 ms", "CPU µs", "PG µs") for part in ("", " change")),
        ],
        rows,
        texts=2,
    )


def _change(before: list[Sample], after: list[Sample], name: str) -> tuple[str, str]:
    old, new = ([value for one in run if (value := getattr(one, name)) is not None] for run in (before, after))
    if not old or not new:
        return "", ""
    first, second = statistics.median(old), statistics.median(new)
    overlap = min(old) <= max(new) and min(new) <= max(old)
    digits = 1 if name == "p99" else 0
    return (
        f"{first:,.{digits}f} → {second:,.{digits}f}",
        f"{'≈ ' if overlap else ''}{(second / first - 1) * 100:+.0f} %",
    )
