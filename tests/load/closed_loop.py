"""The closed loop: wrk keeps `connections` requests in flight and sends the next when one has its response. Finds the
peak. Its clients wait for the service, so it says little about latency: see generator.
"""

import json
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from tests.load.targets import SERVICE, Target, cpu_s, memory_mb
from tests.load.workload import Workload

SCRIPT = Path(__file__).with_name("closed_loop.lua")
GROUP_SIZE = "tasks_database_group_size"
WRITES = ("create", "toggle", "mixed")
CREATE_MANY = "batch"  # 1000 creates a request: an operation of the closed loop only


class Sample(msgspec.Struct):
    """One measurement. Latencies in ms; CPU in µs a request, None where it is not measured."""

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
    group_size: float | None = None  # writes that shared a commit, on average

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
    groups = commits(target) if operation in WRITES else None
    before = [pid and cpu_s(pid) for pid in pids]
    found = _wrk(target.url, operation, workload, connections, seconds, seed)
    after = [pid and cpu_s(pid) for pid in pids]
    service_us, postgres_us = (
        None if end is None or start is None else (end - start) / max(found["requests"], 1) * 1e6
        for start, end in zip(before, after, strict=True)
    )
    group_size = groups.average(commits(target)) if groups else None
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
        group_size=group_size,
        **found,
    )


class Commits(NamedTuple):
    """What the service's /metrics says since its start: commits, and the writes in them."""

    commits: float
    writes: float

    def average(self, later: "Commits | None") -> float | None:
        """Writes a commit from then to `later`; None where there were none."""
        if later is None or later.commits <= self.commits:
            return None
        return (later.writes - self.writes) / (later.commits - self.commits)


def commits(target: Target) -> Commits | None:
    """None for a target without that metric."""
    if target.name != SERVICE:
        return None
    with suppress(OSError), urlopen(f"{target.url}/metrics", timeout=5) as response:
        samples = {
            sample.name: sample.value
            for family in text_string_to_metric_families(response.read().decode())
            for sample in family.samples
            if sample.name.startswith(GROUP_SIZE)
        }
        if samples:
            return Commits(samples[f"{GROUP_SIZE}_count"], samples[f"{GROUP_SIZE}_sum"])
    return None


def _wrk(url: str, operation: str, workload: Workload, connections: int, seconds: float, seed: int) -> dict[str, Any]:
    arguments = [operation, str(workload.users), str(workload.tasks), str(seed)]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(SCRIPT)]
    command += [url, "--", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise RuntimeError("wrk is not installed: on Debian, apt install wrk") from None
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    return json.loads(done.stdout.strip().splitlines()[-1])
