"""With LOG_FORMAT=json every line that `serve` writes is JSON, whatever goes wrong: a collector takes nothing else."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import psycopg
import pytest

from service.operations.embedded import Embedded
from tests.support.databases import create
from tests.support.processes import AWAY, ROOT, RunningService
from tests.support.waiting import wait_until

pytestmark = pytest.mark.faults

SETTINGS = {"DATABASE_URL": AWAY, "AUTH_MODE": "none", "LOG_FORMAT": "json", "PORT": "0"}
JWKS = {"AUTH_MODE": "jwt", "AUTH_JWKS_URL": "https://a.example/jwks"}


class Start(NamedTuple):
    """One that fails. `files` are written to the working directory before; `said` is in what the last line says."""

    said: str
    settings: Mapping[str, str] = {}
    files: Mapping[str, str] = {}
    arguments: tuple[str, ...] = ()
    status: int = 1


FAILING = {
    "a wrong value": Start("WORKERS must be", {"WORKERS": "many"}),
    "a wrong format": Start("LOG_FORMAT must be one of", {"LOG_FORMAT": "yaml"}),
    "an unsafe combination": Start("AUTH_MODE=jwt needs", {"AUTH_MODE": "jwt"}),
    "two problems": Start("HOST=unix:", {"HOST": "unix:x", "KEEP_ALIVE_S": "no"}),
    "a line of .env": Start(".env, line 1 cannot be read", files={".env": 'ROOT_PATH="/x\n'}),
    "a name in .env": Start("did you mean WORKERS?", files={".env": "WORKERS=1\nWORKRES=2\n"}),
    "LOG_FORMAT in .env alone": Start("PORT must be", {"LOG_FORMAT": "", "PORT": "x"}, {".env": "LOG_FORMAT=json\n"}),
    "a URL that is none": Start("DATABASE_URL must be", {"DATABASE_URL": "nonsense"}),
    "a secret in a URL": Start("%40", {"DATABASE_URL": "postgresql://u:p@ss@127.0.0.1/x"}),
    "an address that is none": Start("cannot listen on", {"HOST": "no.such.host.invalid"}),
    "a proxy that is none": Start("SOCKS", JWKS | {"ALL_PROXY": "socks5://127.0.0.1:1"}),
    "the same with two workers": Start("SOCKS", JWKS | {"ALL_PROXY": "socks5://127.0.0.1:1", "WORKERS": "2"}),
    "an option's value": Start("not a valid integer range", arguments=("--port", "x"), status=2),
    "an option that is none": Start("No such option", arguments=("--prot", "1"), status=2),
    "an argument too many": Start("unexpected extra argument", arguments=("now",), status=2),
    "a data folder that is a file": Start("cannot use", {"DATABASE_URL": ""}, {".data": ""}),
    "a package that is broken": Start("broken on purpose", files={"litestar.py": "raise OSError('broken on purpose')"}),
    "the same with two workers and a warning": Start(
        "broken on purpose",
        {"WORKERS": "2"},
        {"litestar.py": "import warnings\nwarnings.warn('old')\nraise OSError('broken on purpose')"},
    ),
    "no temporary folder for workers": Start("set TMPDIR", {"WORKERS": "2", "TMPDIR": "/nonexistent"}),
}


def lines(output: str) -> list[dict[str, Any]]:
    """The lines as JSON objects. Fails for a line that is none."""
    found = [json.loads(line) for line in output.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in found)
    return found


def serve_to_end(folder: Path, start: Start) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "service", "serve", *start.arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | SETTINGS | dict(start.settings),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("start", FAILING.values(), ids=FAILING)
def test_a_start_that_fails(tmp_path: Path, start: Start) -> None:
    if "TMPDIR" in start.settings and os.geteuid() == 0:
        pytest.skip("root can write to /tmp whatever TMPDIR is")
    for name, text in start.files.items():
        (tmp_path / name).write_text(text)
    status, output = serve_to_end(tmp_path, start)
    assert status == start.status
    last = lines(output)[-1]
    assert start.said in json.dumps(last, ensure_ascii=False)
    assert last["level"] in ("error", "critical")


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, output = serve_to_end(tmp_path, Start("", {"PORT": str(port)}))
    assert (status, lines(output)[-1]["message"]) == (
        1,
        f"cannot listen on 127.0.0.1:{port}: Address already in use; set another HOST or PORT",
    )


def test_a_schema_that_is_behind(victim: Embedded, tmp_path: Path) -> None:
    status, output = serve_to_end(tmp_path, Start("", {"DATABASE_URL": create(victim.url)}))
    assert status == 1
    assert "run `tasks-service migrate apply`" in lines(output)[-1]["message"]


def test_migrations_at_the_start_that_wait_for_others(victim: Embedded, tmp_path: Path) -> None:
    url = create(victim.url)
    with psycopg.connect(url) as other:
        other.execute("CREATE TABLE users (id text PRIMARY KEY)")
        other.commit()
        status, output = serve_to_end(tmp_path, Start("", {"DATABASE_URL": url, "MIGRATE_ON_START": "true"}))
    assert status == 1
    assert "users" in lines(output)[-1]["message"]


def test_an_embedded_database_that_is_made_migrated_and_found_broken(tmp_path: Path) -> None:
    with RunningService(tmp_path, AUTH_MODE="none", LOG_FORMAT="json") as service:
        service.logged(30, message="ready")  # a request before would be one line more
        assert service.stop() == 0
    assert [line["message"] for line in lines("\n".join(service.lines))] == [
        "starting",
        "making a database: this takes some seconds, once",
        "listening",
        "AUTH_MODE=none: anyone who can reach this port can act as any user",
        "ready",
        "stopped",
    ]
    (tmp_path / ".data" / "pgdata" / "postgresql.auto.conf").write_text("shared_buffers = nonsense\n")
    status, output = serve_to_end(tmp_path, Start("", {"DATABASE_URL": ""}))
    assert (status, "did not start" in lines(output)[-1]["message"]) == (1, True)


def test_workers_that_are_killed_and_a_stop(url: str, tmp_path: Path) -> None:
    with RunningService(tmp_path, DATABASE_URL=url, AUTH_MODE="none", LOG_FORMAT="json", WORKERS="2") as service:
        wait_until(lambda: sum('"message":"ready"' in line for line in service.lines) == 2, 30)
        psutil.Process(service.process.pid).children()[0].kill()
        service.logged(30, message="a worker died and is replaced")
        wait_until(lambda: sum('"message":"ready"' in line for line in service.lines) == 3, 30)
        assert service.stop() == 0
    lines("\n".join(service.lines))
