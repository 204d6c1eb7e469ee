"""What schemathesis makes of /openapi.json: requests that fit it and that do not, each answer held against it.

The seed is fixed, so that a run says the same as the one before.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import RunningService

# A stale If-Match and a used Idempotency-Key refuse what is well formed. The coverage phase sends the number 0 as a
# header and expects it to be taken whatever the header's pattern says: the other phases hold what is well formed. TRACE
# is a 501, not a 405: no path has it (RFC 9110, 9.1).
CONFIG = """\
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", "404", "412", "422"]
[phases.coverage]
unexpected-methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
[phases.coverage.checks.positive_data_acceptance]
enabled = false
"""


@pytest.mark.slow
@pytest.mark.parametrize("examples", [10, 500])
def test_it_finds_nothing(service: RunningService, tmp_path: Path, examples: int) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{service.url}/openapi.json", "--no-color"),
            *("--seed=1", "--generation-database=none", f"--max-examples={examples}"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Selected: 11/11\n  Tested: 11\n" in done.stdout
