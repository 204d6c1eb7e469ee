"""Every dependency has a tested version in .ci/constraints.txt, and none can change what the service does."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support.processes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = [Requirement(text) for texts in PROJECT["optional-dependencies"].values() for text in texts]
ALL = [requirement for requirement in RUNTIME + EXTRAS if requirement.name != PROJECT["name"]]
LINES = [line for line in (ROOT / ".ci/constraints.txt").read_text().splitlines() if not line.startswith("#")]
TESTED = {canonicalize_name(name): Version(version) for name, _, version in (line.partition("==") for line in LINES)}
UNBOUNDED = {"cryptography"}  # pyproject.toml says why


def test_constraints_are_names_and_versions_only() -> None:
    """No URL, no registry, no path: the file holds wherever packages come from."""
    assert [line for line in LINES if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


@pytest.mark.parametrize("requirement", ALL, ids=str)
def test_a_dependency_has_a_tested_version_within_its_bounds(requirement: Requirement) -> None:
    if requirement.marker is None or requirement.marker.evaluate():
        assert requirement.specifier.contains(TESTED[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("requirement", [r for r in RUNTIME if r.name not in UNBOUNDED], ids=str)
def test_a_dependency_of_the_service_has_an_upper_bound(requirement: Requirement) -> None:
    assert {specifier.operator for specifier in requirement.specifier} & {"<", "=="}
