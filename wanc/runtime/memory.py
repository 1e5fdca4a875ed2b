"""How much memory this process has taken, and how much there is for it."""

from __future__ import annotations

import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

STATUS, PAGES = Path("/proc/self/status"), Path("/proc/self/statm")
MEMINFO = Path("/proc/meminfo")
GROUPS = Path("/proc/self/cgroup")
"""The control groups that this process is in, which a container's limits are those of."""
HIERARCHIES = {
    "": (Path("/sys/fs/cgroup"), "memory.max"),
    "memory": (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
}
"""By the controller: where groups of version 2 and of version 1 lie, and the file of their limit."""


def peak_rss_bytes() -> int:
    """The most memory that this process has held at once, in bytes."""
    if STATUS.exists():
        # Not getrusage: its figure is handed on by fork and exec, so that a small child reports its parent's peak.
        return _kilobytes(STATUS, "VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss_bytes() -> int:
    """What this process holds at the moment, in bytes; the most that it has held where the system does not say."""
    try:
        return int(PAGES.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):  # no Linux, or no /proc
        return peak_rss_bytes()


def available_bytes() -> int | None:
    """How much memory this process could still take: what the machine has free, and its container allows.

    None where the system does not say.
    """
    if not (STATUS.exists() and MEMINFO.exists()):
        return None
    allowed = [limit - rss_bytes() for limit in _limits()]
    return max(min([_kilobytes(MEMINFO, "MemAvailable"), *allowed]), 0)


def _limits() -> Iterator[int]:
    """Of the groups that this process is in, and of those around them."""
    for line in GROUPS.read_text("utf-8").splitlines() if GROUPS.exists() else ():
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            root, name = HIERARCHIES.get(controller, (None, ""))
            if root is None:
                continue
            place = root / group.lstrip("/")
            for folder in (place, *place.parents):
                limit = folder / name
                if (
                    folder.is_relative_to(root)
                    and limit.exists()
                    and (text := limit.read_text("ascii").strip()).isdigit()
                ):
                    yield int(text)


def _kilobytes(path: Path, field: str) -> int:
    """A line of a file of the kernel's, in bytes; 0 where there is none."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", path.read_text("ascii"), flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
