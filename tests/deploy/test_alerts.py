"""deploy/prometheus/alerts.yaml by promtool: valid rules, each of which fires for its fault and for no other.

tests/faults/test_alerts.py makes the faults for real.
"""

import re
import subprocess

import pytest
import yaml

from tests.support.processes import ROOT

RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
TESTS = ROOT / "tests" / "deploy" / "alerts_test.yaml"
ALERTS = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.debian
def test_promtool_finds_no_mistake_in_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", "--lint-fatal", RULES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.debian
def test_each_alert_fires_for_its_fault_and_for_no_other() -> None:
    done = subprocess.run(["promtool", "test", "rules", TESTS.name], cwd=TESTS.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_test_and_is_documented(alert: str) -> None:
    assert f'alertname="{alert}"' in TESTS.read_text()
    table = (
        (ROOT / "deploy" / "README.md").read_text().partition("## Alerts and dashboard")[2].partition("Soak test:")[0]
    )
    assert f"`{alert}`" in table


def test_the_documentation_names_no_other_alert() -> None:
    table = (
        (ROOT / "deploy" / "README.md").read_text().partition("## Alerts and dashboard")[2].partition("Soak test:")[0]
    )
    assert set(re.findall(r"`(Tasks\w+)`", table)) == set(ALERTS)
