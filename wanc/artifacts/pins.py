"""All source files of a build, hashed, and whether they and what leads to them still are what they were.

A build looks again before it keeps what a stage has made of them. A file that was changed and put back has other times;
one that was exchanged has another inode, or hangs on a link or in a folder that was moved meanwhile.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from wanc.artifacts.files import identity_text
from wanc.artifacts.records import Blob
from wanc.artifacts.sources import SourceDigests, changed
from wanc.runtime.safe_read import OnBytes


class PinnedFiles:
    """Source files by name, and the links and folders that lead to them."""

    def __init__(self, files: Mapping[str, Path], sources: SourceDigests, on_bytes: OnBytes | None = None) -> None:
        """Hashes the files that `sources` does not know; `on_bytes` follows that. Raises UserError as `pin` does."""
        self._way = _way_to(files.values())
        self._pins = {name: sources.pin(path, on_bytes) for name, path in sorted(files.items())}

    @property
    def blobs(self) -> dict[str, Blob]:
        return {name: pin.blob for name, pin in self._pins.items()}

    def check(self) -> None:
        """Raise UserError naming the first file, link or folder that is not what it was when the files were hashed."""
        for path, before in self._way.items():
            try:
                after = os.lstat(path)
            except OSError as error:
                raise changed(path) from error
            if not _is_still(before, after):
                raise changed(path)
        for pin in self._pins.values():
            pin.check()


def _way_to(paths: Iterable[Path]) -> dict[Path, os.stat_result]:
    """The links and folders that are passed on the way to files, those that links lead through included."""
    passed: dict[Path, os.stat_result] = {}
    waiting = [path.absolute() for path in paths]
    while waiting:
        path = waiting.pop()
        if path in passed:
            continue
        try:
            passed[path] = os.lstat(path)
            if stat.S_ISLNK(passed[path].st_mode):
                waiting.append(path.parent / os.readlink(path))
        except OSError as error:
            raise changed(path) from error
        if path.parent != path:
            waiting.append(path.parent)
    return {path: status for path, status in sorted(passed.items()) if not stat.S_ISREG(status.st_mode)}


def _is_still(before: os.stat_result, after: os.stat_result) -> bool:
    if stat.S_ISLNK(before.st_mode):
        return identity_text(before) == identity_text(after)
    # A folder's own name or place is not its content: what comes and goes in it sets both of its times.
    was_moved = before.st_ctime_ns != after.st_ctime_ns and before.st_mtime_ns == after.st_mtime_ns
    return os.path.samestat(before, after) and not was_moved
