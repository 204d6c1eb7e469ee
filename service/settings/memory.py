"""The memory that a process may use."""

import contextlib
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def memory_bytes(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """The memory that this process may use: the least of the limits of its cgroup and those around it, version 2 or 1,
    and the machine's memory. `cgroups` is where they are mounted, `own` names those of this process.
    """
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # A container sees its own group as the root of the mount, also where its path is another one.
    folders = [cgroups, cgroups / "memory"]
    with contextlib.suppress(OSError, ValueError):
        for line in own.read_text().splitlines():  # hierarchy:controllers:path; version 2 names no controllers
            _, controllers, path = line.split(":", 2)
            root = cgroups if not controllers else cgroups / "memory"
            if not controllers or "memory" in controllers.split(","):
                group = root / path.lstrip("/")
                folders += [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
    for folder in folders:
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):  # no such file; "max"
                found = min(found, int((folder / name).read_text()))
    return found
