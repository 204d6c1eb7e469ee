"""What a run has found: the struct that is its JSON file."""

import platform
import statistics
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import psutil

from tests.load.ceiling import Ceiling
from tests.load.closed_loop import Sample
from tests.load.flood import Flood
from tests.load.open_loop import Rated
from tests.load.remote import Remote
from tests.load.scale import Point
from tests.load.stages import Baseline, Stages

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
    flood: list[Flood] = []
    failure: str | None = None  # what ended the run early


def has_any(run: Run) -> bool:
    """Whether anything was measured."""
    return any(
        (run.closed_loop, run.ceilings, run.open_loop, run.stages, run.baselines, run.scale, run.remote, run.flood)
    )


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
