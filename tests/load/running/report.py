"""A run's outcome for a terminal, and as a report in Markdown with plots."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from tests.load.running.outcome import Held, Outcome
from tests.load.style import PLAIN, THOUSANDS, colour, styled
from tests.load.table import Table, figure

WIDTH = 40  # of the longest bar, in characters


def tables(outcome: Outcome) -> list[Table]:
    found = [_latencies(outcome), _outcomes(outcome)]
    return [*found, _thresholds(outcome)] if outcome.thresholds else found


def _latencies(outcome: Outcome) -> Table:
    names = list(outcome.latencies[0].percentiles)
    return Table(
        "Latency",
        "ms, of successes and of requests that timed out. Empty: too few requests for this percentile. Successes a "
        "second: those within the duration.",
        ["", "requests", "errors", "successes/s", "mean", *names, "max"],
        [
            [
                *(one.operation, figure(one.requests), figure(one.errors), figure(one.rps, 1), figure(one.mean, 2)),
                *(figure(one.percentiles[name], 2) for name in names),
                figure(one.max, 2),
            ]
            for one in outcome.latencies
        ],
    )


def _outcomes(outcome: Outcome) -> Table:
    total = sum(outcome.outcomes.values())
    return Table(
        "Responses and errors",
        "By status, or by what went wrong.",
        ["", "requests", "%"],
        [[name, figure(count), figure(count / total * 100, 2)] for name, count in outcome.outcomes.items()],
    )


def _thresholds(outcome: Outcome) -> Table:
    return Table(
        "Thresholds",
        "Percentiles, mean and max of latencies; errors as a share or a count; rps: successes a second.",
        ["", "", "measured"],
        [["held" if one.held else "FAILED", one.threshold, measured(one)] for one in outcome.thresholds],
        texts=2,
    )


def measured(one: Held) -> str:
    """With its unit, or why there is nothing."""
    if one.value is None:
        return one.missing
    return f"{figure(one.value, 0 if one.unit == 'errors' else 2)} {one.unit}".replace(" /s", "/s")


def histogram(outcome: Outcome) -> str:
    """In characters."""
    total = sum(bar.count for bar in outcome.bars)
    most = max((bar.count for bar in outcome.bars), default=0)
    lines = [
        f"{bar.to:>8,g} ms  {bar.count / total * 100:6.2f} %  {'█' * round(bar.count / most * WIDTH)}"
        for bar in outcome.bars
    ]
    return "\n".join(["Latency histogram: up to …", "", *lines])


def text(outcome: Outcome) -> str:
    head = f"{outcome.url}\n{outcome.service}\n{outcome.load}"
    parts = [head, *(table.text() for table in tables(outcome)), histogram(outcome)]
    return "\n\n".join([*parts, *(f"WARNING: {warning}" for warning in outcome.warnings)])


def write(outcome: Outcome, folder: Path) -> Path:
    """The report and its plots."""
    plots: list[tuple[str, str, Callable[[Outcome], Figure], object]] = [
        ("over_time", "Latency and rate over time", _over_time, outcome.over_time),
        ("histogram", "Latency histogram", _histogram, outcome.bars),
    ]
    head = [f"# Load on {outcome.url}, {outcome.made}\n", f"{outcome.service}\n", f"{outcome.load}\n"]
    head += [f"**Warning:** {warning}\n" for warning in outcome.warnings]
    with styled():
        for name, title, plot, shown in plots:
            if shown:
                plot(outcome).savefig(folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
                head.append(f"![{title}]({name}.svg)\n")
    body = [table.markdown() for table in tables(outcome)]
    body.append("### Latency histogram\n\n| above ms | to ms | requests |\n|--:|--:|--:|\n")
    body[-1] += "".join(f"| {bar.above:,g} | {bar.to:,g} | {bar.count:,} |\n" for bar in outcome.bars)
    for title, values in (("Options", outcome.options), ("Generator", outcome.generator.lines())):
        body.append(f"### {title}\n\n" + "".join(f"- {name}: {value}\n" for name, value in values.items()))
    file = folder / "report.md"
    file.write_text("\n".join(head + body), "utf-8")
    return file


def _over_time(outcome: Outcome) -> Figure:
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    for index, operation in enumerate(sorted({one.operation for one in outcome.over_time})):
        seconds = [one for one in outcome.over_time if one.operation == operation]
        times = [one.second for one in seconds]
        for name, line in (("p50", ":"), ("p99", "-")):
            values = [getattr(one, name) for one in seconds]
            above.plot(times, [float("nan") if v is None else v for v in values], line, color=colour(index))
        # Only of whole seconds: after the end there is no load.
        rates = [one.requests - one.errors if one.second + 1 <= outcome.seconds else float("nan") for one in seconds]
        below.plot(times, rates, color=colour(index), label=operation)
        if any(one.errors for one in seconds):
            below.plot(times, [one.errors for one in seconds], "x", color=colour(index), label=f"{operation}, errors")
    above.set_yscale("log")
    above.yaxis.set_major_formatter(PLAIN)
    above.set_ylabel("ms (p99; dotted: p50)")
    above.set_title("Latency over time")
    below.yaxis.set_major_formatter(THOUSANDS)
    below.set_ylim(bottom=0)
    below.set_ylabel("successes a second")
    below.set_xlabel("s")
    below.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _histogram(outcome: Outcome) -> Figure:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.bar(range(len(outcome.bars)), [bar.count for bar in outcome.bars], width=0.92, color=colour(0))
    axes.set_xticks(range(len(outcome.bars)), [f"≤ {bar.to:,g}" for bar in outcome.bars], rotation=60, fontsize=8)
    axes.yaxis.set_major_formatter(THOUSANDS)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("ms")
    axes.set_title("Latency histogram: requests")
    return figure
