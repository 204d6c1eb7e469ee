"""The real service as a separate process, on a free port, for tests that talk to it over HTTP."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx

from tests.support.pgbouncer import PgBouncer
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
START_S = 30
AWAY = "postgresql://nobody:secret@127.0.0.1:1/nowhere"  # nothing listens there
# TASKS_TEST_FAST_PATH=off: Litestar alone serves. TASKS_TEST_GROUPS=large: writes share commits as far as they can.
MODULE = (
    "tests.support.without_fast_path"
    if os.environ.get("TASKS_TEST_FAST_PATH") == "off"
    else "tests.support.large_groups"
    if os.environ.get("TASKS_TEST_GROUPS") == "large"
    else "service"
)

# httptools: the services of the tests use uvicorn's protocol class (the setting of the same name)
HTTP_PROTOCOL = os.environ.get("TASKS_TEST_HTTP_PROTOCOL", "")


def plain_client(url: str) -> httpx.Client:
    """A client without certificates, which take 30 ms to load and are of no use here."""
    return httpx.Client(base_url=url, timeout=30, verify=False)


def wait_ready(url: str, timeout_s: float = 20) -> None:
    """Returns when /readyz answers 200."""
    with plain_client(url) as client:

        def ready() -> bool:
            with suppress(httpx.TransportError):
                return client.get("/readyz").status_code == 200
            return False

        wait_until(ready, timeout_s)


class RunningService:
    """`tasks-service serve` with these settings (names as in the environment). `url` is its base URL; `command` says
    where the service is to be found, if not in this checkout.
    """

    pooler: ClassVar[PgBouncer | None] = None  # that every service goes through

    def __init__(self, cwd: Path, *, command: Sequence[str] = (sys.executable, "-m", MODULE), **settings: str) -> None:
        clean = {name: text for name, text in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        if self.pooler is not None and "DATABASE_URL" in settings:
            settings |= self.pooler.settings(settings["DATABASE_URL"])
        self._environment: Mapping[str, str] = clean | {
            "PORT": "0",
            "PYTHONPATH": str(ROOT),
            "HTTP_PROTOCOL": HTTP_PROTOCOL,
            **settings,
        }
        self._command = command
        self._cwd = cwd
        self.lines: list[str] = []  # what it wrote, standard output and error together
        self._greeted = threading.Event()
        self.url = ""

    def start(self) -> Self:
        """Returns when the port is known. Raises RuntimeError with what it wrote where it ends before."""
        self.process = subprocess.Popen(
            [*self._command, "serve"],
            env=self._environment,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._greeted.wait(START_S) or not self.url:
            self.stop()
            raise RuntimeError("the service did not start:\n" + "\n".join(self.lines))
        return self

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if '"message":"listening"' in line:
                self.url = json.loads(line)["url"]
                self._greeted.set()
        self._greeted.set()

    @cached_property
    def http(self) -> httpx.Client:
        """A client of the service, closed when it stops."""
        return plain_client(self.url)

    def logged(self, within_s: float = 5, **fields: Any) -> dict[str, Any]:
        """The first JSON line of the log with these fields; waited for, since the answer goes out before."""

        def found() -> dict[str, Any] | None:
            entries = (json.loads(line) for line in tuple(self.lines) if line.startswith("{"))
            return next((entry for entry in entries if fields.items() <= entry.items()), None)

        return wait_until(found, within_s, lambda: "\n".join(self.lines))

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 30) -> int:
        """Sends a signal and returns the exit status; kills the whole session where it does not end in time."""
        if "http" in vars(self):
            self.http.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout_s)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            self._reader.join(5)
            assert self.process.stdout is not None
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve_to_end(folder: Path, *arguments: str, **settings: str) -> tuple[int, str]:
    """The exit status and all output of a `serve` that is expected not to start."""
    done = subprocess.run(
        [sys.executable, "-m", "service", "serve", *arguments],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PORT": "0", "LOG_FORMAT": "console"} | settings,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr
