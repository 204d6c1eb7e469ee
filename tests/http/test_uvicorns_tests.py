"""uvicorn's own tests of its protocol classes, run against this one: each failure is a difference that README names.

The tests are in uvicorn's source distribution, which pip downloads.
"""

import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.processes import ROOT

pytestmark = pytest.mark.debian

README = ROOT / "service" / "http" / "README.md"
ADDED = """

from service.http.protocol import HttpProtocol


@pytest.fixture
def http_protocol_cls():
    return HttpProtocol


@pytest.fixture
def ws_protocol_cls():
    return None


# What each transport and task of asyncio has, but not these mocks.
MockTransport.abort = MockTransport.write_eof = MockTransport.close
MockTransport.can_write_eof = lambda self: True
MockTask.cancel = lambda self: None
"""
# The tests that fail, and the words of the README that name the reason.
DIFFERENCES = {
    "test_100_continue_sent_when_body_consumed": "not sent when the body is here already",
    "test_duplicate_start_message": "that ends before the body, gets a 500",
    "test_header_upgrade_is_not_websocket_depend_installed": "served as HTTP, without a warning",
    "test_header_upgrade_is_websocket_depend_not_installed": "served as HTTP, without a warning",
    "test_invalid_header_name": "whose response head is no HTTP",
    "test_invalid_http_request": "Errors are JSON",
    "test_keepalive_timeout": "no `timeout_keep_alive_task`",
    "test_keepalive_timeout_with_pipelined_requests": "no `timeout_keep_alive_task`",
    "test_keepalive_timeout_with_pipelined_websocket_upgrade": "no `timeout_keep_alive_task`",
    "test_max_concurrency": "Above `limit_concurrency`, too",
    "test_message_after_body_complete": "is logged or ignored, and the connection stays",
    "test_partial_response_returned": "that ends before the body, gets a 500",
    "test_response_header_splitting": "whose response head is no HTTP",
    "test_scopes": "no `scope` of a connection",
    "test_shutdown_during_idle": "an idle connection stays open for half a second",
    "test_supported_upgrade_request": "No WebSockets",
    "test_unsupported_ws_upgrade_request_warn_on_auto": "served as HTTP, without a warning",
    "test_value_returned": "is logged or ignored, and the connection stays",
}


def test_uvicorns_tests_fail_only_where_the_readme_says_so(tmp_path: Path) -> None:
    said = re.sub(r"\s+", " ", README.read_text())
    assert not [words for words in DIFFERENCES.values() if words not in said]
    name = f"uvicorn-{version('uvicorn')}"
    download = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "uvicorn")
    subprocess.run([*download, name.replace("-", "==")], cwd=tmp_path, check=True, timeout=100)
    with tarfile.open(tmp_path / f"{name}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / name
    (folder / "pyproject.toml").unlink()  # options for plug-ins
    with (folder / "tests" / "protocols" / "test_http.py").open("a") as tests:
        tests.write(ADDED)
    command = (sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "tests/protocols/test_http.py")
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100)
    results = re.findall(r"^(PASSED|FAILED|ERROR) tests/protocols/test_http\.py::(\w+)", done.stdout, re.MULTILINE)
    passed = [test for result, test in results if result == "PASSED"]
    assert len(passed) >= 50
    assert not DIFFERENCES.keys() & set(passed)
    assert not {test for result, test in results if result != "PASSED"} - DIFFERENCES.keys()
