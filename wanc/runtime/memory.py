"""How much memory this process has taken."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

STATUS, PAGES = Path("/proc/self/status"), Path("/proc/self/statm")


def peak_rss_bytes() -> int:
    """The most memory that this process has held at once, in bytes."""
    if STATUS.exists():
        # Not getrusage: its figure is handed on by fork and exec, so that a small child reports its parent's peak.
        found = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text("ascii"), flags=re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss_bytes() -> int:
    """What this process holds at the moment, in bytes; the most that it has held where the system does not say."""
    try:
        return int(PAGES.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):  # no Linux, or no /proc
        return peak_rss_bytes()
