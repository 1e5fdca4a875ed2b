"""The folder that builds write to: where it lies, how much fits, and whether locks work there."""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from wanc.artifacts.files import free_bytes
from wanc.artifacts.mounts import file_system, is_remote


@dataclass(frozen=True)
class Folder:
    """An output folder, which need not exist yet. `fault` is why nothing can be built into it, if that is so."""

    path: str
    file_system: str
    is_remote: bool
    free_bytes: int
    fault: str | None


def examine_folder(path: Path) -> Folder:
    """Look at the folder, or at where it would be made. One file without a name is written there for a moment."""
    path = Path(os.path.abspath(path))
    kind = file_system(path)
    return Folder(str(path), kind, is_remote(kind), free_bytes(path), _fault(path))


def _fault(path: Path) -> str | None:
    nearest = next(place for place in (path, *path.parents) if os.path.exists(place))
    if not os.path.isdir(nearest):
        return f"{nearest} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=nearest) as file:
            return _fault_of_locks(file.fileno())
    except OSError as error:
        return f"{nearest} cannot be written: {error.strerror}"


def _fault_of_locks(descriptor: int) -> str | None:
    try:
        return None if _locks(descriptor) else "locks do not keep others out on this file system"
    except OSError as error:
        return f"files cannot be locked on this file system: {error.strerror}"


def _locks(descriptor: int) -> bool:
    """Whether an exclusive flock keeps out another opening of the same file. Raises OSError where there is no flock."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        other = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    except FileNotFoundError:
        return True  # no /proc: the call itself worked, and that is all that can be seen
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(other)
    return False
