"""The closed loop: wrk keeps `connections` requests in flight and sends the next when one has its response. Finds the
peak. Its clients wait for the service, so it says little about latency: see open_loop.py.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from tests.load.targets import Target, cpu_s, memory_mb
from tests.load.workload import Workload

SCRIPT = Path(__file__).with_name("closed_loop.lua")
CREATE_MANY = "batch"  # 1000 creates a request: an operation of the closed loop only


class Sample(msgspec.Struct):
    """One measurement. Latencies in ms; CPU in µs a request, None where the processes are not ours."""

    target: str
    operation: str
    connections: int
    requests: int
    rps: float
    p50: float
    p90: float
    p99: float
    p999: float
    errors: dict[str, int]
    service_us: float | None = None
    postgres_us: float | None = None
    largest_mb: float | None = None
    together_mb: float | None = None

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def measure(
    target: Target,
    operation: str,
    workload: Workload,
    postgres: int | None,
    *,
    connections: int,
    seconds: float,
    seed: int = 1,
) -> Sample:
    """One run of wrk. `postgres` is the pid of the postmaster."""
    pids = (target.pid, postgres)
    before = [pid and cpu_s(pid) for pid in pids]
    found = _wrk(target.url, operation, workload, connections, seconds, seed)
    after = [pid and cpu_s(pid) for pid in pids]
    service_us, postgres_us = (
        None if end is None or start is None else (end - start) / max(found["requests"], 1) * 1e6
        for start, end in zip(before, after, strict=True)
    )
    largest_mb, together_mb = memory_mb(target.pid) if target.pid else (None, None)
    return Sample(
        target=target.name,
        operation=operation,
        connections=connections,
        rps=found["requests"] / found.pop("seconds"),
        service_us=service_us,
        postgres_us=postgres_us,
        largest_mb=largest_mb,
        together_mb=together_mb,
        **found,
    )


def _wrk(url: str, operation: str, workload: Workload, connections: int, seconds: float, seed: int) -> dict[str, Any]:
    arguments = [operation, str(workload.users), str(workload.tasks), str(seed), workload.user]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(SCRIPT)]
    command += [url, "--", *arguments, *([workload.ids] if workload.ids else [])]
    try:
        # The token not as an argument: a process list would show it.
        done = subprocess.run(command, env=os.environ | {"LOAD_TOKEN": workload.token}, capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError("wrk is not installed: on Debian, apt install wrk") from None
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    return json.loads(done.stdout.strip().splitlines()[-1])
