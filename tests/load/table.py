"""A table of figures for a terminal, or in Markdown."""

from collections.abc import Sequence

import msgspec


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


def figure(value: float | None, digits: int = 0) -> str:
    """Empty where there is none."""
    return "" if value is None else f"{value:,.{digits}f}"
