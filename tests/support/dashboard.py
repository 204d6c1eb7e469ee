"""The dashboard of deploy/grafana, as far as a test needs it: its panels and their queries."""

import json
from dataclasses import dataclass

from tests.support.processes import ROOT

DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"


@dataclass(frozen=True)
class Panel:
    """`queries` are (expression, legend) with Grafana's variables filled in."""

    title: str
    unit: str
    queries: list[tuple[str, str]]


def panels(rate_interval: str) -> list[Panel]:
    """The panels with queries, in order."""
    values = {"$__rate_interval": rate_interval, "$instance": ".*"}

    def filled(expression: str) -> str:
        for name, value in values.items():
            expression = expression.replace(name, value)
        assert "$" not in expression
        return expression

    return [
        Panel(
            panel["title"],
            panel["fieldConfig"]["defaults"]["unit"],
            [(filled(target["expr"]), target["legendFormat"]) for target in panel["targets"]],
        )
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        if panel["type"] != "row"
    ]
