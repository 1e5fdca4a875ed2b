"""Digests of source files, remembered so that a rebuild does not read 57 GB of weights to learn that nothing changed.

A file is taken for the same when device, inode, size, modification and change time are the same. That can be forged by
whoever owns the machine, which is fine for files that the user named, and never done for anything read from a bundle.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import time
from pathlib import Path

from wanc.artifacts.canonical import canonical, digest_of
from wanc.artifacts.files import identity_text, opened_input, output_errors, read_small, replace_file
from wanc.artifacts.locks import held
from wanc.artifacts.mounts import file_system
from wanc.artifacts.records import Blob
from wanc.artifacts.store import Store
from wanc.errors import EXIT_TEMPORARY, BundleError, UserError
from wanc.runtime.safe_read import OnBytes, sha256_of
from wanc.runtime.strict_json import JsonObject, parse_object

SETTLE_NS = 2 * 10**9
"""A file that changed less than this ago may change again within one tick of the file system's clock."""

# Where a change time can be set, or is none: what was written over may look as it did before.
_FORGETFUL = ("vfat", "msdos", "exfat", "ntfs", "cifs", "smb", "fuse", "9p")

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_log = logging.getLogger(__name__)


class Pin:
    """One file with its digest. `identity` is what it looked like while it was read.

    Where `is_settled` is false, a later change need not show in its looks: then it is read again, not just looked at.
    """

    def __init__(self, path: Path, blob: Blob, identity: str, *, is_settled: bool) -> None:
        self.path, self.blob = path, blob
        self._identity, self._is_settled = identity, is_settled

    def check(self) -> None:
        """Raise UserError unless the file is what it was when it was hashed."""
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise changed(self.path) from error
        if identity_text(status) != self._identity:
            raise changed(self.path)
        if not self._is_settled:
            self._read_again()

    def _read_again(self) -> None:
        with opened_input(self.path) as descriptor:
            before = os.fstat(descriptor)
            is_settled = has_settled(before, self.path)
            digest, _ = sha256_of(descriptor)
            after = os.fstat(descriptor)
        if digest != self.blob.digest or {identity_text(before), identity_text(after)} != {self._identity}:
            raise changed(self.path)
        self._is_settled = is_settled


class SourceDigests:
    """The remembered digests of a store, in its `sources.json`. With `paranoid`, every file is read again."""

    def __init__(self, store: Store, *, paranoid: bool = False) -> None:
        self._store = store
        self._file = store.root / "sources.json"
        self._paranoid = paranoid
        self._remembered = self._load()

    def pin(self, path: Path, on_bytes: OnBytes | None = None) -> Pin:
        """A source file, hashed; symbolic links are followed. `on_bytes` follows the reading, if any.

        Raises UserError when the file cannot be read or changes while it is read.
        """
        with opened_input(path) as descriptor:
            before = os.fstat(descriptor)
            identity = identity_text(before)
            digest = self._remembered.get(identity)
            if isinstance(digest, str) and not self._paranoid:
                return Pin(path, Blob(digest, before.st_size), identity, is_settled=True)
            is_settled = has_settled(before, path)
            digest, size = sha256_of(descriptor, on_bytes)
            after = os.fstat(descriptor)
        if identity != identity_text(after) or size != after.st_size:
            raise UserError("changed while it was read", where=str(path), hint="build again when it is complete")
        if is_settled:
            self._remember(identity, digest)
        return Pin(path, Blob(digest, size), identity, is_settled=is_settled)

    def blob(self, path: Path, on_bytes: OnBytes | None = None) -> Blob:
        """Digest and size of a source file. Raises UserError as `pin` does."""
        return self.pin(path, on_bytes).blob

    def _remember(self, identity: str, digest: str) -> None:
        """Merge into what other processes have written meanwhile."""
        with held(self._store.root / "locks/sources"), self._store.workdir() as workdir:
            self._remembered = {**self._load(), identity: digest}
            document: JsonObject = {"digests": self._remembered, "checksum": digest_of(self._remembered)}
            replace_file(self._file, canonical(document), workdir=workdir)

    def _load(self) -> JsonObject:
        try:
            fields = parse_object(read_small(self._file), where=str(self._file))
            entries = fields.object("digests").values
            # A flipped bit would be another file's digest.
            if fields.text("checksum") != digest_of(entries):
                fields.refuse("checksum", "does not fit the digests")
            if all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in entries.values()):
                return entries
            reason = "it holds something that is not a digest"
        except FileNotFoundError:
            return {}
        except (OSError, BundleError, ValueError) as error:  # ValueError: a number that was never written here
            reason = str(error)
        _log.warning("forgetting the digests of source files: %s", reason)
        with output_errors(self._file):
            self._file.unlink(missing_ok=True)
        return {}


def changed(path: Path) -> UserError:
    """What is said of a source that is no longer what a build began with."""
    return UserError(
        "changed while it was being built",
        where=str(path),
        hint="build again: what was made of it is not kept",
        exit_code=EXIT_TEMPORARY,
    )


def has_settled(status: os.stat_result, path: Path) -> bool:
    """Whether any later change must show in a file's times. To be asked before the file is read."""
    age = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns)
    return age > SETTLE_NS and _keeps_change_times(path.parent)


@functools.cache
def _keeps_change_times(folder: Path) -> bool:
    return not file_system(folder).startswith(_FORGETFUL)
