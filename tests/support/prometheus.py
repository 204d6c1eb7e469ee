"""Debian's Prometheus, scraping services of a test. Must not import the service."""

import json
import re
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.waiting import wait_until

START_S = 30


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def fast(rules: str) -> str:
    """The rules, with seconds for minutes: a test cannot wait for `for: 5m`."""
    rules = re.sub(r"for: \d+[ms]", "for: 1s", rules)
    return re.sub(r"offset \d+m", "offset 15s", re.sub(r"\[\d+m\]", "[15s]", rules))


class Prometheus:
    """Scrapes these targets (host:port) every half second and evaluates these rules."""

    def __init__(self, targets: Sequence[str], rules: str = "groups: []") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="prometheus-")
        folder = Path(self._folder.name)
        (folder / "rules.yaml").write_text(rules)
        # JSON is YAML.
        (folder / "prometheus.yaml").write_text(
            json.dumps(
                {
                    "global": {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"},
                    "rule_files": ["rules.yaml"],
                    "scrape_configs": [{"job_name": "tasks-service", "static_configs": [{"targets": list(targets)}]}],
                }
            )
        )
        port = free_port()
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=10, verify=False)
        self._command = [
            "prometheus",
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)

        def scraped() -> bool:
            assert self._process.poll() is None, "Prometheus ended"
            with suppress(httpx.TransportError):
                return self._http.get("/query", params={"query": "up"}).is_success and bool(self.query("up"))
            return False

        try:
            wait_until(scraped, START_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._http.close()
        self._folder.cleanup()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        return self._ask("query", query=expression)

    def query_range(self, expression: str, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """The series of a range query, times in seconds since the epoch."""
        return self._ask("query_range", query=expression, start=str(start), end=str(end), step=str(step_s))

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {series["metric"]["alertname"] for series in self.query('ALERTS{alertstate="firing"}')}

    def _ask(self, endpoint: str, **parameters: str) -> list[dict[str, Any]]:
        answer = self._http.get(f"/{endpoint}", params=parameters).json()
        if answer["status"] != "success":
            raise ValueError(f"{parameters['query']}: {answer['error']}")
        return answer["data"]["result"]
