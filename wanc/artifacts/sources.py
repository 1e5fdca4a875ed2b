"""Digests of source files, remembered so that a rebuild does not read 57 GB of weights to learn that nothing changed.

A file is taken for the same when device, inode, size, modification and change time are the same. That can be forged by
whoever owns the machine, which is fine for files that the user named, and never done for anything read from a bundle.
"""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path

from wanc.artifacts.canonical import canonical
from wanc.artifacts.files import opened_input, output_errors, read_small, replace_file
from wanc.artifacts.locks import held
from wanc.artifacts.records import Blob
from wanc.artifacts.store import Store
from wanc.errors import BundleError, UserError
from wanc.runtime.safe_read import OnBytes, sha256_of
from wanc.runtime.strict_json import JsonObject, parse_object

SETTLE_NS = 2 * 10**9
"""A file that changed less than this ago may change again within one tick of the file system's clock."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_log = logging.getLogger(__name__)


class SourceDigests:
    """The remembered digests of a store, in its `sources.json`. With `paranoid`, every file is read again."""

    def __init__(self, store: Store, *, paranoid: bool = False) -> None:
        self._store = store
        self._file = store.root / "sources.json"
        self._paranoid = paranoid
        self._remembered = self._load()

    def blob(self, path: Path, on_bytes: OnBytes | None = None) -> Blob:
        """Digest and size of a source file; symbolic links are followed. `on_bytes` follows the reading, if any.

        Raises UserError when the file cannot be read or changes while it is read.
        """
        with opened_input(path) as descriptor:
            before = os.fstat(descriptor)
            digest = self._remembered.get(_identity(before))
            if isinstance(digest, str) and not self._paranoid:
                return Blob(digest, before.st_size)
            digest, size = sha256_of(descriptor, on_bytes)
            after = os.fstat(descriptor)
        if _identity(before) != _identity(after) or size != after.st_size:
            raise UserError("changed while it was read", where=str(path), hint="build again when it is complete")
        if time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > SETTLE_NS:
            self._remember(_identity(after), digest)
        return Blob(digest, size)

    def _remember(self, identity: str, digest: str) -> None:
        """Merge into what other processes have written meanwhile."""
        with held(self._store.root / "locks/sources"), self._store.workdir() as workdir:
            self._remembered = {**self._load(), identity: digest}
            replace_file(self._file, canonical(self._remembered), workdir=workdir)

    def _load(self) -> JsonObject:
        try:
            entries = parse_object(read_small(self._file), where=str(self._file)).values
            if all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in entries.values()):
                return entries
            reason = "it holds something that is not a digest"
        except FileNotFoundError:
            return {}
        except (OSError, BundleError) as error:
            reason = str(error)
        _log.warning("forgetting the digests of source files: %s", reason)
        with output_errors(self._file):
            self._file.unlink(missing_ok=True)
        return {}


def _identity(status: os.stat_result) -> str:
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, parts))
