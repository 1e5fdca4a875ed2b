"""What of some files is in the system's cache: putting it out, counting it, and how fast dd reads it.

What a process has read is counted by what its files have in a cache that was empty of them. A file that is mapped is
read by page faults, which /proc/self/io counts in no line of its own beside all else that the process reads; and
what lies in the cache already, it does not count at all.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

PAGE = mmap.PAGESIZE


class Extent(NamedTuple):
    """Bytes of a file."""

    offset: int
    length: int


def put_out(paths: Iterable[Path]) -> None:
    """Take files out of the cache; pages that a process has mapped in stay."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())  # what is not written yet would stay as well
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def put_in(paths: Iterable[Path]) -> None:
    """Read files, so that they are in the cache as far as there is room."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.read(2**24):
                pass


def cached_bytes(path: Path) -> int:
    """How much of a file is in the cache, in whole pages. Linux tells that to who may write the file."""
    size = path.stat().st_size
    if not size:
        return 0
    with path.open("r+b") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE) as mapped:
        pages = (ctypes.c_ubyte * -(-size // PAGE))()
        start = (ctypes.c_byte * size).from_buffer(mapped)
        try:
            if ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(start), ctypes.c_size_t(size), pages):
                raise OSError(ctypes.get_errno(), "mincore")
        finally:
            del start  # the map cannot be closed before
        return PAGE * bytes(pages).count(1)


def dd_seconds(extents: Mapping[Path, Iterable[Extent]]) -> float:
    """How long dd takes to read parts of files, one after the other, a MiB at a time."""
    started = time.perf_counter()
    for path, parts in extents.items():
        for offset, length in parts:
            asked = [f"skip={offset}", f"count={length}", "iflag=skip_bytes,count_bytes"]
            subprocess.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none", *asked], check=True)
    return time.perf_counter() - started


def joined(extents: Iterable[Extent], gap: int = PAGE) -> list[Extent]:
    """The same bytes in as few pieces as there are, those less than `gap` apart being one."""
    found: list[Extent] = []
    for extent in sorted(extents):
        if found and extent.offset - sum(found[-1]) < gap:
            first = found.pop()
            extent = Extent(first.offset, max(sum(first), sum(extent)) - first.offset)
        found.append(extent)
    return found
