"""The files that a run opens, and that they are still those that were verified."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from .directory import BundleDirectory
from .errors import UserError, VerificationError
from .strict_json import Fields, JsonObject

Identity = tuple[int, int, int, int, int]
"""Which file it is, and whether it was touched since: device, inode, size in bytes, times of writing and of change."""


Read = TypeVar("Read")
MOST_MOVES = 100
CLOCK_TICK_NS = 20_000_000
"""The times of files are those of the last tick of the kernel's clock, of which there are 100 a second at least."""


def identity_of(status: os.stat_result) -> Identity:
    """Of an open file, or of one that has a name."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class PlainFolder:
    """A folder that nobody has sealed: what a compiler has just made."""

    bundle_id: str | None = None
    """Of the bundle that it is, if it is one."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str, reader: Callable[[Path], Read]) -> Read:
        """What `reader` makes of a file, given the path by which it can be opened, and what lies beside it as well."""
        return reader(self._root / name)

    def shown(self, name: str) -> str:
        """What errors call a file."""
        return str(self._root / name)

    def as_json(self) -> JsonObject:
        """What `folder_of` makes the same folder of, in a process that has its `descriptors` as this one has."""
        return {"root": os.path.abspath(self._root)}

    @property
    def descriptors(self) -> tuple[int, ...]:
        return ()


class VerifiedFolder(PlainFolder):
    """A bundle as it was verified. Every file is opened beneath its descriptor, `name` being relative to it.

    `identities` are those of the files that were hashed. A file that was replaced or written to since is refused,
    before it is opened and again afterwards; one that a writer changes later, where a library has mapped it, is not
    seen: mount bundles read-only.
    """

    def __init__(
        self, directory: BundleDirectory, identities: Mapping[str, Identity], bundle_id: str | None = None
    ) -> None:
        super().__init__(directory.path)
        self._directory, self._identities, self.bundle_id = directory, identities, bundle_id

    def read(self, name: str, reader: Callable[[Path], Read]) -> Read:
        """As above. Raises VerificationError where it, or a file beside it, is not what was verified any more."""
        folder = name.rpartition("/")[0]
        beside = [path for path in self._identities if path.rpartition("/")[0] == folder]
        self._check(beside)
        result = self._read(name, reader)
        self._check(beside)
        return result

    def shown(self, name: str) -> str:
        return str(self._directory.shown / name)

    def as_json(self) -> JsonObject:
        # Texts: times in nanoseconds are larger than what every reader of JSON takes for the same number.
        identities = {name: " ".join(map(str, identity)) for name, identity in self._identities.items()}
        return {
            "shown": str(self._directory.shown),
            "descriptor": self._directory.descriptor,
            "identities": {**identities},
        }

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self._directory.descriptor,)

    def _read(self, name: str, reader: Callable[[Path], Read]) -> Read:
        for left in reversed(range(MOST_MOVES)):
            started = time.time_ns()
            try:
                return reader(self._root / name)
            except UserError as error:
                # Errors name files as people know them.
                error.where = error.where and error.where.replace(str(self._root), str(self._directory.shown), 1)
                # onnxruntime compares where the files that it has opened lie: a directory that is renamed in between,
                # which its own times tell, looks like two.
                if not left or os.stat(self._root).st_ctime_ns < started - CLOCK_TICK_NS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _check(self, names: list[str]) -> None:
        for name in names:
            try:
                found = identity_of(os.stat(name, dir_fd=self._directory.descriptor, follow_symlinks=False))
            except OSError:
                found = None
            if found != self._identities[name]:
                raise VerificationError(
                    "was changed since it was verified",
                    where=self.shown(name),
                    hint="nobody may write to a bundle that runs: fetch or build it again",
                )


def folder_of(fields: Fields) -> PlainFolder:
    """The folder of another process whose descriptors this one has inherited. Raises BundleError."""
    if "root" in fields.values:
        return PlainFolder(Path(fields.text("root")))
    told = fields.object("identities")
    identities = {name: _identity(told, name) for name in told.values}
    directory = BundleDirectory(Path(fields.text("shown")), fields.integer("descriptor"))
    return VerifiedFolder(directory, identities)


def _identity(fields: Fields, name: str) -> Identity:
    try:
        device, inode, size, written, changed = map(int, fields.text(name).split())
    except ValueError:
        fields.refuse(name, "must be five numbers")
    return device, inode, size, written, changed
