"""Private working directories: locked while in use, removed afterwards, swept when their owner was killed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wanc.artifacts.files import output_errors
from wanc.artifacts.locks import release, try_lock

LOCK_NAME = ".lock"


@contextmanager
def private_directory(parent: Path, *, prefix: str = "", suffix: str = "") -> Generator[Path]:
    """A new directory below `parent` that no sweep touches, removed at the end. Raises OutputError."""
    while True:
        with output_errors(parent):
            directory = Path(tempfile.mkdtemp(prefix=prefix, suffix=suffix, dir=parent))
        try:
            descriptor = try_lock(directory / LOCK_NAME)
        except FileNotFoundError:
            continue  # a sweep took the directory for an abandoned one before it was locked
        if descriptor is not None:
            break
    try:
        yield directory
    finally:
        _remove(directory, descriptor)


def abandoned(parent: Path, *, prefix: str = "", suffix: str = "") -> Iterator[Path]:
    """Each private directory below `parent` whose owner died; it is removed when the iteration goes on."""
    for directory in sorted(parent.iterdir()):
        if not _is_private(directory, prefix, suffix):
            continue
        try:
            descriptor = try_lock(directory / LOCK_NAME, create=False)
        except FileNotFoundError:
            with suppress(OSError):
                directory.rmdir()  # an owner that died early, or is about to lock it: then it makes another
            continue
        if descriptor is None:
            continue
        try:
            yield directory
        finally:
            _remove(directory, descriptor)


def _is_private(directory: Path, prefix: str, suffix: str) -> bool:
    name = directory.name
    if not (name.startswith(prefix) and name.endswith(suffix)):
        return False
    # The random part has no ".": the prefix ".a." must not match what ".a.b." made.
    is_random = "." not in name.removeprefix(prefix).removesuffix(suffix)
    return is_random and not directory.is_symlink() and directory.is_dir()


def _remove(directory: Path, descriptor: int) -> None:
    """Remove a private directory and release its lock, whose file goes last: until then a sweep can finish the job."""
    try:
        with suppress(OSError):
            for path in directory.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != LOCK_NAME:
                    path.unlink()
            (directory / LOCK_NAME).unlink()
            directory.rmdir()
    finally:
        release(descriptor)
