"""A bundle's directory, held open: it stays the same one whatever its name comes to mean meanwhile.

A deploy tool turns `current` to another bundle while a run goes on. What is opened later by the path would be that
one's; beneath the descriptor it is still this one's.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import TypeAlias

from .errors import EXIT_NO_INPUT, BundleError, TargetError

DESCRIPTORS = Path("/proc/self/fd")
"""Where Linux shows a process what it holds open (proc_pid_fd(5)): names below a descriptor are opened beneath it."""


class BundleDirectory:
    """An open directory. `shown` is what errors call it, `descriptor` is closed with the last use of this object."""

    def __init__(self, shown: Path, descriptor: int) -> None:
        self.shown, self.descriptor = shown, descriptor
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def open(cls, path: Path) -> BundleDirectory:
        """The directory at `path`; a link is followed here, and never again. Raises BundleError where there is none."""
        try:
            return cls(path, os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        except OSError as error:
            raise BundleError("cannot open the bundle", where=str(path), exit_code=EXIT_NO_INPUT) from error

    @property
    def path(self) -> Path:
        """The directory, for libraries that open files by path. Raises TargetError where /proc is not mounted."""
        path = DESCRIPTORS / str(self.descriptor)
        if not path.is_dir():
            raise TargetError(
                "a bundle's files are opened beneath /proc/self/fd, which is not there", hint="mount /proc"
            )
        return path


Root: TypeAlias = Path | BundleDirectory
"""Where a bundle is: a path that is yet to be opened, or what has been opened."""


def as_directory(root: Root) -> BundleDirectory:
    """The open directory. Raises BundleError where there is none."""
    return root if isinstance(root, BundleDirectory) else BundleDirectory.open(root)
