"""Large blobs that stay where they are: `located/<hex>.json` says where, and how large.

A denoiser's weights weigh 14 GB, and file systems without shared blocks would need them twice: once in the store and
once in the bundle that adopted them. The digest is checked whenever such a blob is used, as for a stored one.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from wanc.artifacts.canonical import canonical
from wanc.artifacts.files import read_small, replace_file
from wanc.artifacts.records import Blob
from wanc.errors import BundleError
from wanc.runtime.strict_json import Fields, parse_object

_MAX_BYTES = 2**16
_log = logging.getLogger(__name__)


class Located:
    """The directory `located/` of a store."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def find(self, blob: Blob) -> Path | None:
        """Where a file of the blob's size is recorded to lie, or None. The content is not looked at."""
        entry = self._entry(blob.hex)
        try:
            path, size = read_note(entry)
        except FileNotFoundError:
            return None
        except (OSError, BundleError) as error:
            _log.warning("ignoring a damaged note of where a file lies: %s", error)
            return None
        if size != blob.size or not _is_file_of(path, size):
            return None
        return path

    def record(self, blob: Blob, path: Path, *, workdir: Path) -> None:
        """Note that the blob lies at `path` from now on. Raises OutputError."""
        replace_file(self._entry(blob.hex), canonical({"path": text_of(path), "size": blob.size}), workdir=workdir)

    def forget(self, blob: Blob) -> None:
        """Drop the note. The file itself is not ours to touch."""
        self._entry(blob.hex).unlink(missing_ok=True)

    def _entry(self, hex_digest: str) -> Path:
        return self._directory / f"{hex_digest}.json"


def read_note(entry: Path) -> tuple[Path, int]:
    """The place, absolute, and the size in bytes that a note tells. Raises BundleError, OSError when unreadable."""
    fields = parse_object(read_small(entry, _MAX_BYTES), where=str(entry), max_bytes=_MAX_BYTES)
    return place_in(fields, "path"), fields.integer("size")


def place_in(fields: Fields, name: str) -> Path:
    """The absolute path in a field that `text_of` wrote. Raises BundleError for what it never wrote."""
    try:
        path = path_of(fields.text(name))
    except ValueError:
        fields.refuse(name, "is not one that was written here")
    if not path.is_absolute():
        fields.refuse(name, "is not absolute")
    return path


def text_of(path: Path) -> str:
    """A path, made absolute, as JSON keeps it: a path is bytes, not text, and Latin-1 keeps any of them."""
    return os.fsencode(os.path.abspath(path)).decode("latin-1")


def path_of(text: str) -> Path:
    """The path that `text_of` wrote. Raises ValueError for what it never wrote."""
    return Path(os.fsdecode(text.encode("latin-1")))


def _is_file_of(path: Path, size: int) -> bool:
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size
