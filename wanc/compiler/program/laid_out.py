"""Files of the store under the names that they know of each other: there each lies under its digest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from wanc.compiler.stages.stage import Files

COPIED_BYTES = 64 * 2**20


@contextmanager
def laid_out(files: Files, scratch: Path) -> Generator[Path]:
    """A folder below `scratch` that holds the files by name, until the block ends.

    Large ones are linked, and copied where they are on another file system: the store knows that names below its tmp/
    are its own, where stages work. Small ones are copied, so that they may be laid out anywhere.
    """
    with TemporaryDirectory(dir=scratch) as folder:
        for name, path in files.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.stat().st_size <= COPIED_BYTES or not _linked(path, target):
                shutil.copyfile(path, target)
        yield Path(folder)


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except OSError:
        return False
    return True
