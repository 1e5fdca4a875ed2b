"""Hashing a bundle's files, the large ones at once: a core hashes a gigabyte in a second, and disks give more."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event

from .cores import available_cores
from .folder import Identity, identity_of
from .manifest import FileEntry
from .safe_read import Progress, irregularity, opened_beneath, sha256_of

MOST_AT_ONCE = 4
LARGE_BYTES = 2**20
TOLD_SECONDS = 0.1
"""Between two calls of a progress, which come from the thread that waits."""

Found = Identity | str
"""Which file the listed one is, or why it is not that."""


def check_files(
    root: int, files: Sequence[FileEntry], present: Collection[str], progress: Progress | None
) -> list[Found]:
    """Compare listed files beneath an open directory with what is there, each read once; the results in their order.

    `present` are the paths at which there is something. `progress` is called with (bytes done, bytes in total).
    """
    work = _Work(root, files, present, progress)
    pool = ThreadPoolExecutor(min(MOST_AT_ONCE, available_cores()), "verify")
    try:
        large = {index: pool.submit(work.check, index) for index, file in enumerate(files) if file.size >= LARGE_BYTES}
    except RuntimeError:  # there cannot be another thread
        large = {}
    try:
        found: dict[int, Found] = {}
        for index in range(len(files)):
            if index not in large:
                found[index] = work.check(index)
                work.tell()
        left = set(large.values())
        while left:
            left = wait(left, TOLD_SECONDS).not_done
            work.tell()
        return [large[index].result() if index in large else found[index] for index in range(len(files))]
    finally:
        # Who is interrupted does not wait until the largest file is read.
        work.stopped.set()
        pool.shutdown(cancel_futures=True)


class _Work:
    """Files to compare, and how much of them is done."""

    def __init__(
        self, root: int, files: Sequence[FileEntry], present: Collection[str], progress: Progress | None
    ) -> None:
        self._root, self._files, self._present, self._progress = root, files, present, progress
        self._done = [0] * len(files)
        self._total = sum(file.size for file in files)
        self.stopped = Event()

    def check(self, index: int) -> Found:
        """What came of a file."""

        def on_bytes(count: int) -> None:
            self._done[index] += count
            if self.stopped.is_set():
                raise InterruptedError

        file = self._files[index]
        found = _check_file(self._root, file, on_bytes) if file.path in self._present else "is missing"
        self._done[index] = file.size
        return found

    def tell(self) -> None:
        """Call the progress."""
        if self._progress:
            self._progress(min(sum(self._done), self._total), self._total)


def _check_file(root: int, file: FileEntry, on_bytes: Callable[[int], None]) -> Found:
    """Kind, links and size come first: they cost nothing to check."""
    try:
        with opened_beneath(root, file.path) as descriptor:
            before = os.fstat(descriptor)
            fault = irregularity(before)
            if fault:
                return fault
            if before.st_size != file.size:
                return f"has {before.st_size} bytes, not {file.size}"
            digest, _ = sha256_of(descriptor, on_bytes)
            after = identity_of(os.fstat(descriptor))
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if identity_of(before) != after:
        return "changed while it was read"
    return after if digest == file.sha256 else f"has {digest}, not {file.sha256}"
