"""Client generators on /openapi.json: each takes every operation, its types are right, its client works."""

import json
import re
import sys
from pathlib import Path

import pytest

from service.tasks import openapi
from tests.clients.conftest import COMMANDS, HERE, caller, run
from tests.support.processes import RunningService

pytestmark = pytest.mark.clients


def test_the_page_names_every_generator() -> None:
    assert len(COMMANDS) == 6


def test_each_typescript_client_has_every_operation_and_its_types_are_right(compiled: Path) -> None:
    """By TypeScript's strict checks of programs/*.ts, which name every operation and what must be an error."""
    schema = (compiled / "schema.ts").read_text()
    described = json.loads(openapi.document(token_needed=True))
    for path, item in described["paths"].items():
        assert f'"{path}": {{' in schema
        for operation in item.values():
            assert f"{operation['operationId']}: {{" in schema


def test_each_python_client_is_typed(generated: Path) -> None:
    """By mypy; unused ignores are errors, so each line that must be wrong is."""
    checked = [path.name for path in (HERE / "programs").glob("*.py")]
    checked += ["models.py", "structs.py", "task_client/api", "task_client/models"]
    run(generated, sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", *checked)


def test_openapi_fetch_drives_every_operation(compiled: Path, serving: RunningService) -> None:
    run(compiled, "node", "js/openapi_fetch.js", serving.url, *caller())


def test_openapi_python_client_drives_every_operation(generated: Path, serving: RunningService) -> None:
    run(generated, sys.executable, "-W", "error", "python_client.py", serving.url, *caller())


def test_generated_types_tell_absent_from_null(generated: Path, serving: RunningService) -> None:
    run(generated, sys.executable, "python_types.py", serving.url, *caller())


@pytest.mark.parametrize("token_needed", [True, False])
@pytest.mark.parametrize(
    ("command", "silence"),
    [
        (["redocly", "lint", "--extends=recommended", "--format=json"], r'"errors": 0,\s*"warnings": 0'),
        (["spectral", "lint", "--fail-severity=hint", "--ruleset=.spectral.yaml"], "No results"),
    ],
    ids=["redocly", "spectral"],
)
def test_a_linter_reports_nothing(workshop: Path, command: list[str], silence: str, token_needed: bool) -> None:
    (workshop / ".spectral.yaml").write_text('extends: ["spectral:oas"]\n')
    (workshop / "linted.json").write_bytes(openapi.document(token_needed=token_needed))
    assert re.search(silence, run(workshop, *command, "linted.json"))
