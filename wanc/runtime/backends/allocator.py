"""The C library's allocator, which keeps for itself what was freed unless it is told not to."""

from __future__ import annotations

import ctypes
from contextlib import suppress

MMAP_THRESHOLD, LARGE = -3, 2**20
"""Of glibc's mallopt(3): from so many bytes on, memory goes back to the system when it is freed."""


def give_back_what_is_large() -> None:
    """From now on, in the whole process. The system clears every page that it gives, which costs time."""
    with suppress(AttributeError):  # other C libraries give back by themselves
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE)
