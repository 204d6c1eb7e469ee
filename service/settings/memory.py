"""The memory that a process may use."""

import contextlib
import os
from pathlib import Path


def memory_bytes() -> int:
    """The memory that this process may use: its cgroup's limit, version 2 or 1, or the machine's memory."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    root = Path("/sys/fs/cgroup")
    limits = [root / "memory.max", root / "memory" / "memory.limit_in_bytes"]
    with contextlib.suppress(OSError):  # version 2, where the process sees its own group's path
        own = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].strip().lstrip("/")
        limits += [root / part / "memory.max" for part in (own, *map(str, Path(own).parents))]
    for limit in limits:
        with contextlib.suppress(OSError, ValueError):  # no such file; "max"
            found = min(found, int(limit.read_text()))
    return found
