"""deploy/grafana/dashboard.json: every query of every panel returns data from the real service."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support import http
from tests.support.dashboard import DASHBOARD, panels
from tests.support.databases import terminate
from tests.support.identity_provider import Provider
from tests.support.processes import RunningService, wait_ready
from tests.support.prometheus import Prometheus
from tests.support.tokens import ED, USER, token
from tests.support.waiting import wait_until

RATE = "10s"


@pytest.mark.debian
def test_every_query_returns_data(clone: Callable[[], str], tmp_path: Path) -> None:
    url = clone()
    with (
        Provider([ED.jwk]) as provider,
        RunningService(tmp_path, DATABASE_URL=url, AUTH_MODE="jwt", AUTH_JWKS_URL=provider.url) as service,
        Prometheus([urlsplit(service.url).netloc]) as prometheus,
        psycopg.connect(url, autocommit=True) as admin,
    ):
        wait_ready(service.url)
        terminate(admin)  # once, so that there are failures to show
        wait_ready(service.url)
        caller = {"authorization": f"Bearer {token(ED)}"}
        silent = {(panel.title, query) for panel in panels(RATE) for query, _ in panel.queries}

        def asked() -> bool:
            for method, path, body in (
                ("POST", f"/api/{USER}/tasks", b'{"title": "x"}'),
                ("GET", f"/api/{USER}/tasks", b""),
                ("GET", f"/api/{USER}/tasks/1", b""),
            ):
                http.exchange(service.url, http.request(method, path, body, caller))
            # A ratio without a request in between is NaN.
            silent.difference_update(
                {
                    (title, query)
                    for title, query in silent
                    if any(series["value"][1] != "NaN" for series in prometheus.query(query))
                }
            )
            return not silent

        wait_until(asked, 30, lambda: silent)


def test_no_two_panels_overlap_and_each_has_a_title_and_a_unit() -> None:
    taken: set[tuple[int, int]] = set()
    dashboard = json.loads(DASHBOARD.read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["title"]
        assert panel["type"] == "row" or panel["fieldConfig"]["defaults"]["unit"]


def test_each_metric_of_the_documentation_s_table_is_shown_or_alerted_on() -> None:
    """A metric that neither uses is either missing from the dashboard or not worth its name."""
    folder = DASHBOARD.parents[1]
    table = (folder / "README.md").read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    names = {
        name
        for line in table.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line[: line.index("|", 2)])
    }
    used = DASHBOARD.read_text() + (folder / "prometheus" / "alerts.yaml").read_text()
    assert {name for name in names if name not in used} <= {"tasks_database_connects_total"}
