"""Files of the store under the names that they know of each other: there each lies under its digest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from wanc.compiler.stages.stage import Files


@contextmanager
def laid_out(files: Files, scratch: Path) -> Generator[Path]:
    """A folder below `scratch` that holds the files by name, until the block ends.

    They are linked, and copied where they are on another file system. `scratch` is below the store's tmp/: names that
    are anywhere else make a stored file a damaged one.
    """
    with TemporaryDirectory(dir=scratch) as folder:
        for name, path in files.items():
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if not _linked(path, target):
                shutil.copyfile(path, target)
        yield Path(folder)


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except OSError:
        return False
    return True
