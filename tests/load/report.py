"""The report: tables in Markdown, plots in SVG."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from tests.load import results, tables
from tests.load.results import Run, names
from tests.load.style import PALETTE, PLAIN, THOUSANDS, styled
from tests.load.table import Table
from tests.load.tables import STAGES
from tests.load.targets import BUN, FASTAPI, GO, LITESTAR, RUST, SERVICE

COLOURS = {
    SERVICE: "#0072b2",
    GO: "#e69f00",
    RUST: "#d55e00",
    BUN: "#56b4e9",
    LITESTAR: "#009e73",
    FASTAPI: "#cc79a7",
}


def write(run: Run, folder: Path, comparison: Table | None = None) -> Path:
    """The report and its plots, in `folder`."""
    plots: list[tuple[str, str, Callable[[Run], Figure], list[Any]]] = [
        ("peak", "Requests a second at the peak", _peak, run.closed_loop),
        ("latency", "Latency against rate", _latency, run.open_loop),
        ("stages", "Cost of a request by stage", _stages, run.stages),
        ("scale", "Requests a second against rows, connections and workers", _scale, run.scale),
    ]
    text = [f"# Load test, {run.made}\n"]
    if run.failure is not None:
        text.append(f"**The run failed, so this is what it measured before: {run.failure}**\n")
    with styled():
        for name, title, plot, figures in plots:
            if figures:
                plot(run).savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
                text.append(f"![{title}]({name}.svg)\n")
    text += [table.markdown() for table in ([comparison] if comparison else []) + tables.tables(run)]
    for title, found in (("Machine", run.machine), ("PostgreSQL", run.postgres), ("Options", run.options)):
        if found:
            text.append(f"### {title}\n\n" + "".join(f"- {name}: {value}\n" for name, value in found.items()))
    report = folder / "report.md"
    report.write_text("\n".join(text), "utf-8")
    return report


def _peak(run: Run) -> Figure:
    operations, targets = names(run.closed_loop, "operation"), names(run.closed_loop, "target")
    figure = Figure(figsize=(10, 3.8))
    axes = figure.subplots()
    width = 0.8 / len(targets)
    for index, target in enumerate(targets):
        rates = [[sample.rps for sample in results.of(run, target, operation)] for operation in operations]
        middles = [statistics.median(each) for each in rates]
        spread = [[m - min(each) for m, each in zip(middles, rates, strict=True)]]
        spread.append([max(each) - m for m, each in zip(middles, rates, strict=True)])
        places = [place + (index - (len(targets) - 1) / 2) * width for place in range(len(operations))]
        bars = axes.bar(places, middles, width * 0.92, label=target, color=COLOURS.get(target, "#999999"))
        axes.errorbar(places, middles, spread, fmt="none", ecolor="#333333", elinewidth=0.9, capsize=2)
        # Above the whisker, so that neither hides the other.
        for bar, each in zip(bars, rates, strict=True):
            place = bar.get_x() + bar.get_width() / 2
            axes.annotate(
                f"{bar.get_height() / 1000:.1f}",
                (place, max(each)),
                (0, 2),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=6.5,
                color="#333333",
            )
    axes.set_xticks(range(len(operations)), operations)
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}")
    axes.set_title("Thousands of requests a second, closed loop (median; whiskers: least and most)")
    axes.legend(ncols=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    return figure


def _latency(run: Run) -> Figure:
    figure = Figure(figsize=(8, 3.8))
    axes = figure.subplots()
    for target in names(run.open_loop, "target"):
        found = [one for one in run.open_loop if one.target == target]
        rates, colour = [one.rate for one in found], COLOURS.get(target, "#999999")
        for percentile, line in (("p50", ":"), ("p99", "-"), ("p999", "--")):
            label = f"{target}, {percentile.replace('p999', 'p99.9')}"
            axes.plot(
                rates, [getattr(one, percentile) for one in found], line, marker="o", ms=3.5, color=colour, label=label
            )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(PLAIN)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.set_xlim(left=0)
    axes.set_xlabel("requests a second that come")
    axes.set_ylabel("ms from when each was due")
    axes.set_title(f"Latency against rate, open loop ({run.open_loop[0].operation})")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _stages(run: Run) -> Figure:
    figure = Figure(figsize=(8, 0.62 * len(run.stages) + 1.5))
    axes = figure.subplots()
    shown = [name for name in STAGES if name != "service"]
    operations = [one.operation for one in run.stages]
    left = [0.0] * len(run.stages)
    for name, colour in zip(shown, PALETTE, strict=False):
        # A part that came out below nothing is noise between two measurements; the table shows it.
        widths = [max(0.0, getattr(one, name)) for one in run.stages]
        bars = axes.barh(operations, widths, left=left, color=colour, label=STAGES[name], height=0.62)
        axes.bar_label(
            bars,
            [f"{w:.0f}" if w >= 6 else "" for w in widths],
            label_type="center",
            fontsize=8,
            color="#222222" if colour in ("#e69f00", "#56b4e9", "#f0e442", "#cc79a7") else "white",
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("µs of CPU a request")
    axes.set_title("What a request costs, stage by stage")
    axes.legend(ncols=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.6 / len(run.stages) - 0.04))
    return figure


def _scale(run: Run) -> Figure:
    kinds = ("rows", "connections", "workers")
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 3), kinds, strict=True):
        points = [one for one in run.scale if one.axis.startswith(kind)]
        (_workers if kind == "workers" else _lines)(axes, points)
        axes.yaxis.set_major_formatter(THOUSANDS)
        axes.set_ylim(bottom=0)
        axes.set_title(f"against {kind}")
    figure.axes[0].set_ylabel("requests a second")
    return figure


def _lines(axes: Axes, points: list[results.Point]) -> None:
    for operation, colour in zip(names(points, "operation"), PALETTE, strict=False):
        found = sorted((one for one in points if one.operation == operation), key=lambda one: one.value)
        values, rates = [one.value for one in found], [one.rps for one in found]
        spread = [[one.rps - one.least for one in found], [one.most - one.rps for one in found]]
        axes.errorbar(values, rates, spread, fmt="o-", ms=4, capsize=2, elinewidth=0.9, color=colour, label=operation)
    if points:
        axes.set_xscale("log")
        axes.set_xticks(sorted({one.value for one in points}))
        axes.xaxis.set_major_formatter(THOUSANDS)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.legend(fontsize=8)


def _workers(axes: Axes, points: list[results.Point]) -> None:
    operations = names(points, "operation")
    counts = list(dict.fromkeys(one.value for one in points))
    width = 0.8 / max(1, len(counts))
    for index, (count, colour) in enumerate(zip(counts, PALETTE, strict=False)):
        rates = [
            next(p.rps for p in points if (p.value, p.operation) == (count, operation)) for operation in operations
        ]
        places = [place + (index - (len(counts) - 1) / 2) * width for place in range(len(operations))]
        axes.bar(places, rates, width * 0.92, color=colour, label=f"{count} worker{'s' * (count > 1)}")
    axes.set_xticks(range(len(operations)), operations)
    axes.grid(visible=False, axis="x")
    axes.legend(fontsize=8)
