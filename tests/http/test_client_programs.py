"""The HTTP clients that people use: each creates a task, reads it 20 times on one connection, and learns that a body is
too large while it still sends it.
"""

import asyncio
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import RunningService

pytestmark = pytest.mark.debian

PROGRAMS = Path(__file__).parent / "programs"
COMMANDS = {
    "node": ["node", str(PROGRAMS / "client.mjs")],
    "go": ["/usr/bin/go", "run", str(PROGRAMS / "client.go")],
    "java": ["java", str(PROGRAMS / "Client.java")],
}


def run(folder: Path, *command: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GO111MODULE": "off"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_client_reuses_its_connection_and_gets_an_early_413(service: RunningService, tmp_path: Path, name: str) -> None:
    said: dict[str, Any] = json.loads(run(tmp_path, *COMMANDS[name], service.url))
    assert said == {"statuses": [201] + [200] * 20, "connections": 1, "large": 413}


def test_aiohttp_reuses_its_connection_and_gets_an_early_413(service: RunningService) -> None:
    import aiohttp  # the extra clients

    async def talk() -> list[int]:
        async with aiohttp.ClientSession(service.url, connector=aiohttp.TCPConnector(limit=1)) as session:
            statuses: list[int] = []
            async with session.post("/api/u/tasks", json={"title": "x"}) as response:
                statuses.append(response.status)
                path = response.headers["Location"]
            for _ in range(20):
                async with session.get(path) as response:
                    statuses.append(response.status)
            async with session.post("/api/u/tasks", data=io.BytesIO(b"x" * 20_000_000)) as response:
                statuses.append(response.status)
            return statuses

    assert asyncio.run(talk()) == [201] + [200] * 20 + [413]


@pytest.mark.parametrize("option", ["--http1.1", "--http1.0", "--http2"])
def test_curl_reuses_its_connection(service: RunningService, tmp_path: Path, option: str) -> None:
    url = f"{service.url}/api/u/tasks"
    keep = ["-H", "Connection: keep-alive"] if option == "--http1.0" else []
    arguments = ["curl", "-s", option, *keep, "-o", str(tmp_path / "out"), "-w", "%{http_code} %{num_connects}\n"]
    post = ["-d", '{"title": "x"}', "-H", "Content-Type: application/json", url]
    lines = run(tmp_path, *arguments, *post, "--next", *arguments[1:], url, "--next", *arguments[1:], url).split("\n")
    assert lines[:3] == ["201 1", "200 0", "200 0"]


@pytest.mark.parametrize("expect", ["100-continue", ""])
def test_curl_gets_an_early_413(service: RunningService, tmp_path: Path, expect: str) -> None:
    (tmp_path / "large").write_bytes(b"x" * 20_000_000)
    arguments = ["-o", str(tmp_path / "out"), "-w", "%{http_code}", "-H", f"Expect: {expect}".strip()]
    url = f"{service.url}/api/u/tasks"
    assert run(tmp_path, "curl", "-s", *arguments, "--data-binary", f"@{tmp_path}/large", url) == "413"
    assert b"error" in (tmp_path / "out").read_bytes()
