"""How many processors there are to work with."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from .errors import UserError

LOG = logging.getLogger(__name__)


def available_cores() -> int:
    """The processors that this process may use; a thread that is kept on some of them, those."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_here() -> frozenset[int]:
    """The numbers of the processors that this thread is kept on; none where a system keeps no thread."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


def all_cores() -> frozenset[int]:
    """The numbers of the processors on which this process may keep a thread; none where a system keeps no thread."""
    return frozenset(os.sched_getaffinity(os.getpid())) if hasattr(os, "sched_getaffinity") else frozenset()


def keep_on(cores: Iterable[int]) -> None:
    """Keep this thread, and those that it will make, on these processors."""
    os.sched_setaffinity(0, cores)


def threads_here(threads: int) -> int:
    """How many of so many threads, 0 for all, an engine has that this thread opens: those of its own processors."""
    own = available_cores()
    return threads if own >= len(all_cores()) else min(threads or own, own)


def threads_to_use(asked: int | None, recipe: int) -> int:
    """The number of threads of a run: what it was asked for, or, None, what the recipe of its bundle says; 0 is all.

    A bundle moves to other machines: a recipe's number that is too large for this one becomes all that there are, with
    a warning. Raises UserError where more are asked for than there are.
    """
    available = available_cores()
    if asked is None:
        if recipe > available:
            LOG.warning(
                "note: the bundle asks for %d threads, and this machine has %d: all are used", recipe, available
            )
        return min(recipe, available)
    if asked > available:
        there = f"1 to {available}" if available > 1 else "1"
        raise UserError(f"{asked} threads", hint=f"this machine has {available}: ask for {there}, or 0 for every core")
    return asked
