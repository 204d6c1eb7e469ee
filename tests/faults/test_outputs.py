"""Output that cannot be written, and places that cannot be used: one sentence, no traceback. Each runs in a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import AWAY, ROOT, serve_to_end

FULL = Path("/dev/full")
UNWRITABLE = "Error: the output cannot be written: "


def run(folder: Path, command: str, redirection: str, **settings: str) -> tuple[int, str]:
    """The exit status of a command whose output is redirected by the shell, and what it wrote to standard error."""
    done = subprocess.run(
        ["bash", "-c", f'"{sys.executable}" -m service {command} {redirection}'],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | settings,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a full device")
@pytest.mark.parametrize("command", ["--help", "check", "migrate status --json"])
def test_a_full_disk_behind_the_output_is_said_in_a_line(tmp_path: Path, command: str) -> None:
    assert run(tmp_path, command, f"> {FULL}") == (1, f"{UNWRITABLE}No space left on device\n")


def test_closed_output_is_said_in_a_line(tmp_path: Path) -> None:
    assert run(tmp_path, "check", ">&-") == (1, f"{UNWRITABLE}Bad file descriptor\n")
    assert run(tmp_path, "check", ">&- 2>&-") == (1, "")


def test_a_reader_that_goes_away_needs_no_message(tmp_path: Path) -> None:
    assert run(tmp_path, "--help", "| true")[1] == ""


@pytest.mark.parametrize("command", ["prune", "psql", "user export u", "dump x"])
def test_a_database_that_was_never_made_is_said_in_a_line_and_not_made(tmp_path: Path, command: str) -> None:
    status, said = run(tmp_path, command, "")
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(f"Error: there is no database in {tmp_path}/.data yet: `tasks-service serve` makes it")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["serve", "prune"])
def test_a_working_directory_that_is_gone_is_said_in_a_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "gone").mkdir()
    gone = f'{command} --help > /dev/null; cd gone && rmdir ../gone && "{sys.executable}" -m service {command}'
    status, said = run(tmp_path, gone, "", LOG_FORMAT="console", PORT="0")
    assert status == 1
    assert said.splitlines()[-1].startswith("Error: The working directory cannot be used (No such file or directory)")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1", "ALL_PROXY names a SOCKS proxy"),
        ("HTTPS_PROXY", "::u:s3cret", "HTTPS_PROXY is not the URL of an HTTP proxy"),
        ("SSL_CERT_FILE", "/nope", "SSL_CERT_FILE=/nope"),
        ("NO_PROXY", "fd00::/8", "NO_PROXY has an entry that cannot be used"),
    ],
)
def test_an_environment_that_keys_cannot_be_fetched_with_stops_the_start(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    """With several workers too: found before any is started."""
    settings = {"DATABASE_URL": AWAY, "AUTH_MODE": "jwt", "AUTH_JWKS_URL": "https://a.example/jwks", name: text}
    status, output = serve_to_end(tmp_path, WORKERS="2", **settings)
    assert status == 1
    assert output.splitlines()[-1].startswith(f"  {said}")
    assert "s3cret" not in output
