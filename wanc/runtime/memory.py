"""How much memory this process has taken, and how much there is for it."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
MEMINFO = Path("/proc/meminfo")
CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of the control group that a container sees as the root of its own: version 2, and 1."""


def peak_rss_bytes() -> int:
    """The most memory that this process has held at once, in bytes."""
    if STATUS.exists():
        # Not getrusage: its figure is handed on by fork and exec, so that a small child reports its parent's peak.
        return _kilobytes(STATUS, "VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def available_bytes() -> int | None:
    """How much memory this process could still take: what the machine has free, and its container allows.

    None where the system does not say.
    """
    if not (STATUS.exists() and MEMINFO.exists()):
        return None
    taken = _kilobytes(STATUS, "VmRSS")
    limits = [path.read_text("ascii").strip() for path in CGROUP_LIMITS if path.exists()]
    allowed = [int(limit) - taken for limit in limits if limit.isdigit()]
    return max(min([_kilobytes(MEMINFO, "MemAvailable"), *allowed]), 0)


def _kilobytes(path: Path, field: str) -> int:
    """A line of a file of the kernel's, in bytes; 0 where there is none."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", path.read_text("ascii"), flags=re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
