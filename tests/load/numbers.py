"""Numbers on the command line. click's FloatRange lets nan through, and inf where there is no upper bound."""

import math
from typing import Any

import click

from tests.load.generator.job import MAX_RATE


class Number(click.FloatRange):
    """A finite number of a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


RATE = Number(1, MAX_RATE)
