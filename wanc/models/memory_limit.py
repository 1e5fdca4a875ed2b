"""A limit on the memory that a block of code may take, in a process that goes on behind it."""

from __future__ import annotations

import resource
from collections.abc import Generator
from contextlib import contextmanager

from wanc.linux import private_bytes


@contextmanager
def memory_limit(most: int) -> Generator[None]:
    """The block, and forks in it, get so many bytes beyond what the process has; then MemoryError is raised.

    What was imported before does not count, which differs from machine to machine. Where the system does not tell what
    a process has, there is no limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    before = private_bytes()
    limits = [before + most if before is not None else soft, soft, hard]
    lowest = min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=soft)
    resource.setrlimit(resource.RLIMIT_DATA, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
