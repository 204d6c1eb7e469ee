"""Two runs of the harness side by side."""

import statistics

from tests.load.results import Run, Sample, names, of
from tests.load.table import Table


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
