"""Files that are of use while they grow: under a name that says that they are partial, or straight to standard output.

What is written so stays whatever happens, as far as it got. What appears complete or not at all is `whole_file`'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .destination import STDOUT, reporting, require_outside_bundles, require_replaceable
from .errors import UserError

PARTIAL = ".partial"


def partial_name(path: Path) -> Path:
    """What a file is called until it is complete: out.mp4 → out.partial.mp4."""
    return path.with_name(f"{path.stem}{PARTIAL}{path.suffix}")


@contextmanager
def partial_file(path: Path, what: str) -> Generator[IO[bytes]]:
    """A stream into a file that grows as `partial_name` says, and is called `path` when the block ends well.

    Otherwise it keeps the name that says that it is partial; only where nothing came into it, it goes away. A partial
    file that is there already gives way. Raises UserError as `whole_file` does.
    """
    growing = partial_name(path)
    require_outside_bundles(path)
    require_replaceable(path, what)
    require_replaceable(growing, what)
    with reporting(growing, what):
        with suppress(FileNotFoundError):
            growing.unlink()
        file = open(growing, "xb", buffering=0)  # noqa: SIM115
    try:
        with file:
            yield file
            with reporting(growing, what):
                os.fsync(file.fileno())
        with reporting(path, what):
            require_replaceable(path, what)
            os.replace(growing, path)
    finally:
        with suppress(OSError):
            if growing.stat().st_size == 0:
                growing.unlink()


@contextmanager
def streamed_file(path: Path, what: str) -> Generator[IO[bytes]]:
    """A stream to standard output, which gets everything as it is written. Raises UserError for any other name."""
    if path != STDOUT:
        hint = f"write `-o -` and redirect it, or take --keep-partial for a file: {path}"
        raise UserError(f"{what} is streamed to standard output alone", where=str(path), hint=hint)
    with reporting(path, what):
        if sys.stdout is None:
            raise UserError("standard output is closed", hint="name a file")
        if os.isatty(1):
            raise UserError(f"{what} would be written to a terminal", hint="redirect standard output, or name a file")
        sys.stdout.flush()
        file = open(1, "wb", buffering=0, closefd=False)  # noqa: SIM115
    with file:
        yield file
