"""What a stage that may be stopped keeps for itself: each file with its digest beside it, as `<name>.kept`.

Only what is exactly what was kept, under its own name and in its own folder, is used again. Everything else is removed
and has to be made once more: a flipped bit in a clip would silently be another bundle.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from wanc.artifacts.canonical import canonical
from wanc.artifacts.files import copy_file, hash_file, output_errors, put_in_place, read_small, sync_directory
from wanc.errors import OutputError, UserError
from wanc.runtime.safe_read import irregularity
from wanc.runtime.strict_json import parse_object

_MAX_BYTES = 2**16
_log = logging.getLogger(__name__)


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Make or replace the file `path`: `write` is given the place of a private one. Raises OutputError.

    Whoever is stopped in between leaves the old file or the new one, and either is known.
    """
    part = path.with_name(f"{path.name}.part")
    with output_errors(path):
        _clear(part)
        write(part)
        before = _digest(path)
        _write_record(path, [hash_file(part)[0], *(digest for digest in _recorded(path) if digest == before)])
        if before is None:
            _clear(path)
        put_in_place(part, path)
        sync_directory(path.parent)


def forget_damaged(path: Path) -> None:
    """Remove the file, and say so, unless it is as it was kept. Raises OutputError."""
    _is_sound(path, lambda: _digest(path))


def drop(path: Path) -> None:
    """Remove the file, if there is one, and what is known of it. Raises OutputError."""
    with output_errors(path):
        _clear(path)
        _clear(_record_of(path))


def restore(path: Path, to: Path) -> bool:
    """Copy a file that is as it was kept to the new file `to`. Raises OutputError.

    False where there is none; what is damaged is removed, and said to be.
    """
    if _is_sound(path, lambda: copy_file(path, to)[0]):
        return True
    with output_errors(to):
        _clear(to)
    return False


def _is_sound(path: Path, read: Callable[[], str | None]) -> bool:
    if not os.path.lexists(path):
        return False
    fault = irregularity(os.lstat(path))
    try:
        if fault is None and read() in _recorded(path):
            return True
    except OutputError:
        raise
    except UserError:
        fault = "cannot be read"
    _log.warning("%s %s: it is made again", path, fault or "is not what was kept")
    with output_errors(path):
        _clear(path)
    return False


def _digest(path: Path) -> str | None:
    """Of a file that lies there; None where there is nothing of the kind."""
    if not os.path.lexists(path) or irregularity(os.lstat(path)):
        return None
    with suppress(UserError):
        return hash_file(path)[0]
    return None


def _recorded(path: Path) -> list[str]:
    """The digests that the file may have; none where that is not known."""
    with suppress(OSError, UserError):
        fields = parse_object(read_small(_record_of(path), _MAX_BYTES), where=str(path), max_bytes=_MAX_BYTES)
        if (fields.text("folder"), fields.text("name")) == (_folder_of(path), path.name):
            return fields.texts("digests")
    return []


def _write_record(path: Path, digests: list[str]) -> None:
    record, data = _record_of(path), canonical({"digests": [*digests], "folder": _folder_of(path), "name": path.name})
    part = record.with_name(f"{record.name}.part")
    for place in (part, record):
        if os.path.lexists(place) and irregularity(os.lstat(place)):
            _clear(place)
    part.write_bytes(data)
    put_in_place(part, record)


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.kept")


def _folder_of(path: Path) -> str:
    """What the folder is called where it really is: of a stage's, that is its key."""
    return os.path.basename(os.path.realpath(path.parent))


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
