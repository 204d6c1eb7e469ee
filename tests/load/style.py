"""How plots look."""

from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
from matplotlib.ticker import FuncFormatter

# Okabe and Ito's palette, told apart by colour-blind readers too.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "svg.hashsalt": "tests.load",
}
THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")
PLAIN = FuncFormatter(lambda value, _: f"{value:,g}")


def colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def styled() -> AbstractContextManager[None]:
    return mpl.rc_context(STYLE)
