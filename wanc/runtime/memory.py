"""How much memory this process has taken."""

from __future__ import annotations

import resource
import sys


def peak_rss_bytes() -> int:
    """The most memory that this process has held at once, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
