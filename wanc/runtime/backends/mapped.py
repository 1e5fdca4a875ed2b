"""Pages of a mapped file that this process has read and needs no more."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

MAPS = Path("/proc/self/maps")
DONT_NEED = 4
"""Linux's MADV_DONTNEED: of a file that is only read, pages are read again where they are needed after all."""


def let_go(path: Path) -> None:
    """Take the pages of a file out of this process's memory, wherever it is mapped; nothing where that is not known.

    They count as the process's as long as they are mapped in, though the system could have them back at any time.
    """
    if sys.platform != "linux" or not path.exists():
        return
    status = path.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    library = ctypes.CDLL(None)
    for line in MAPS.read_text("utf-8", "surrogateescape").splitlines():
        addresses, rights, _, at, inode, *_ = line.split(maxsplit=5)
        if (at, inode) == (device, str(status.st_ino)) and "w" not in rights:
            start, end = (int(address, 16) for address in addresses.split("-"))
            library.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), DONT_NEED)
