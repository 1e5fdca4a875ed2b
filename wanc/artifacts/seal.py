"""Sealing: a bundle's directory made in private, and put in its place only when it is complete.

The bytes of a bundle depend on its contents alone: not on the umask, the clock, the order of files, or the machine.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from wanc.artifacts.canonical import canonical
from wanc.artifacts.files import copy_file, hash_file, output_errors, require_space, sync_tree, write_new
from wanc.artifacts.moves import Announce, Move
from wanc.artifacts.private import abandoned, private_directory
from wanc.artifacts.publish import ASIDE, publish, recover
from wanc.errors import EXIT_DATA, EXIT_NO_INPUT, BundleError, OutputError, UserError
from wanc.runtime.directory import BundleDirectory
from wanc.runtime.manifest import (
    MANIFEST,
    MARKER,
    MARKER_LINE,
    NOT_CHECKED,
    SCHEMA,
    FileEntry,
    Manifest,
    check_marker,
)
from wanc.runtime.safe_read import Progress, irregularity
from wanc.runtime.strict_json import JsonObject, JsonValue

_SUFFIX = ".sealing"
_BLOCK_BYTES = 4096
YEAR_10000 = 253_402_300_800  # in seconds since 1970


@dataclass(frozen=True)
class BundleFile:
    """One file to seal: where it goes in the bundle, and its content as bytes or as a file to copy.

    `digest` is what the file's content must be, where that is known. With `move`, the file is renamed into the bundle
    instead of copied where that is possible. It is copied when it has another name, lies on another file system, or
    belongs to a bundle: sealed bundles are never taken apart.
    """

    path: str
    source: Path | bytes
    role: str
    media_type: str
    executable: bool = False
    move: bool = False
    digest: str | None = None


@dataclass(frozen=True)
class BundleFacts:
    """What a manifest says besides its files. `created` is in seconds since 1970, UTC (SOURCE_DATE_EPOCH)."""

    name: str
    version: str
    created: int
    entry: str
    recipe_sha256: str
    topology: Mapping[str, JsonValue]
    runtime: Mapping[str, JsonValue]
    targets: Sequence[Mapping[str, JsonValue]] = ()
    requires: Sequence[str] = ()
    parents: Sequence[Mapping[str, JsonValue]] = ()
    check: Mapping[str, JsonValue] = field(default_factory=lambda: dict[str, JsonValue](NOT_CHECKED))

    def manifest(self, files: Iterable[FileEntry]) -> bytes:
        """The bytes of the manifest.

        Raises BundleError when `created` is not a time, ValueError when a fact cannot be said in JSON.
        """
        if not 0 <= self.created < YEAR_10000:
            raise BundleError(f"{self.created} is not a time between 1970 and 9999", hint="look at SOURCE_DATE_EPOCH")
        created = datetime.fromtimestamp(self.created, UTC)
        document: JsonObject = {
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "created": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "requires": list(self.requires),
            "targets": [dict(target) for target in self.targets],
            "topology": dict(self.topology),
            "runtime": dict(self.runtime),
            "files": [_described(file) for file in sorted(files, key=lambda file: file.path)],
            "entry": self.entry,
            "recipe_sha256": self.recipe_sha256,
            "parents": [dict(parent) for parent in self.parents],
            "check": dict(self.check),
        }
        return canonical(document)


@dataclass(frozen=True)
class Sealed:
    """A bundle that stands complete at `path`; `id` is "sha256:<64 hex>" of its manifest."""

    id: str
    path: Path


def seal(
    destination: Path,
    files: Iterable[BundleFile],
    facts: BundleFacts,
    *,
    announce: Announce | None = None,
    set_aside: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> Sealed:
    """Make the bundle `destination`, in place of the bundle that may stand there, at once and as a whole.

    `announce` is called with what will be moved before any of it is; what it raises stops the seal. What was replaced
    is handed to `set_aside`, or removed. `progress` is called with (bytes done, bytes in total).

    Raises BundleError when the manifest would not be valid, UserError when a source cannot be read or is not what it
    must be, or when something other than a bundle stands at `destination`, OutputError when it cannot be written; then
    nothing has changed, and files to move are back where they were.
    """
    destination = Path(os.path.abspath(destination))
    marker = BundleFile(MARKER, f"{MARKER_LINE}\n".encode(), role="marker", media_type="text/plain")
    ordered = sorted([*files, marker], key=lambda file: file.path)
    sizes = {file.path: _size(file.source) for file in ordered}
    draft = [_entry(file, f"sha256:{'0' * 64}", _size(file.source)) for file in ordered]
    Manifest.parse(facts.manifest(draft), where=f"{destination}/{MANIFEST}")  # every rule, before any work
    with output_errors(destination):
        _check_replaceable(destination)
        destination.parent.mkdir(parents=True, exist_ok=True)
        for private in abandoned(destination.parent, prefix=_prefix(destination), suffix=_SUFFIX):
            recover(private, destination)
    require_space(destination.parent, _space(ordered, sizes, destination.parent))
    with private_directory(destination.parent, prefix=_prefix(destination), suffix=_SUFFIX) as private:
        staging = _Staging(private / "bundle", facts, sum(sizes.values()), progress)
        try:
            bundle_id = staging.fill(ordered, destination, announce)
            with output_errors(destination):
                publish(staging.root, destination)
        except BaseException:
            staging.give_back()
            raise
        if set_aside is not None:
            for replaced in (staging.root, private / ASIDE):
                if replaced.exists():
                    set_aside(replaced)
    return Sealed(bundle_id, destination)


@dataclass
class _Staging:
    """The private copy of a bundle while it is made."""

    root: Path
    facts: BundleFacts
    total: int
    progress: Progress | None
    done: int = 0
    moves: dict[str, Move] = field(default_factory=dict[str, Move])

    def fill(self, files: Sequence[BundleFile], destination: Path, announce: Announce | None) -> str:
        """Write everything and make it durable; the id of the bundle."""
        with output_errors(self.root):
            self.root.mkdir(mode=0o755)
            self.moves = {file.path: move for file in files if (move := self._planned(file, destination))}
            if announce and self.moves:
                announce([*self.moves.values()])
        # Moves come last: until then a kill costs nothing but this copy.
        entries = [self._place(file) for file in sorted(files, key=lambda file: file.move)]
        manifest = self.facts.manifest(entries)
        write_new(self.root / MANIFEST, manifest)
        with output_errors(self.root):
            self._normalise()
            sync_tree(self.root)
        return self._read_back(manifest)

    def give_back(self) -> None:
        """Return moved files to where they came from."""
        for move in self.moves.values():
            move.undo()

    def _place(self, file: BundleFile) -> FileEntry:
        target = self.root / file.path
        mode = 0o755 if file.executable else 0o644
        with output_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(file.source, bytes):
            write_new(target, file.source, mode=mode)
            self._advance(len(file.source))
            return _entry(file, f"sha256:{hashlib.sha256(file.source).hexdigest()}", len(file.source))
        if file.path in self.moves and self._moved(file.source, target, mode):
            digest, size = hash_file(target, self._advance)
        else:
            digest, size = copy_file(file.source, target, mode=mode, on_bytes=self._advance)
        if file.digest not in (None, digest):
            raise UserError(
                "changed while the bundle was sealed", where=str(file.source), hint="build again", exit_code=EXIT_DATA
            )
        return _entry(file, digest, size)

    def _planned(self, file: BundleFile, destination: Path) -> Move | None:
        """How a file would be renamed in, if that is asked for and allowed; otherwise it must be copied."""
        if not file.move or isinstance(file.source, bytes):
            return None
        status = os.lstat(file.source)
        if irregularity(status) or any((parent / MARKER).exists() for parent in file.source.absolute().parents):
            return None
        mode = status.st_mode & 0o7777
        return Move(file.source, self.root / file.path, destination / file.path, status.st_ino, mode)

    def _moved(self, source: Path, target: Path, mode: int) -> bool:
        """Rename a file in, if its file system is the bundle's; otherwise it must be copied."""
        with output_errors(target):
            try:
                source.rename(target)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    return False
                raise
            os.chmod(target, mode)
        return True

    def _normalise(self) -> None:
        """Modes and times that say nothing about the machine; directories after what they hold."""
        for directory, _, names in os.walk(self.root, topdown=False):
            for name in names:
                os.utime(os.path.join(directory, name), (self.facts.created, self.facts.created))
            os.chmod(directory, 0o755)
            os.utime(directory, (self.facts.created, self.facts.created))

    def _read_back(self, manifest: bytes) -> str:
        """What was written must be what a runtime will read. Raises BundleError."""
        found = Manifest.read(self.root)
        if found.id != f"sha256:{hashlib.sha256(manifest).hexdigest()}":
            raise OutputError("does not read back as it was written", where=str(self.root / MANIFEST))
        return found.id

    def _advance(self, count: int) -> None:
        self.done += count
        if self.progress:
            self.progress(min(self.done, self.total), self.total)


def _prefix(destination: Path) -> str:
    return f".{destination.name}."


def _size(source: Path | bytes) -> int:
    if isinstance(source, bytes):
        return len(source)
    try:
        return source.stat().st_size
    except OSError as error:
        raise UserError("cannot be read", where=str(source), exit_code=EXIT_NO_INPUT) from error


def _space(files: Iterable[BundleFile], sizes: Mapping[str, int], parent: Path) -> int:
    """Bytes that copies will take, in whole blocks; what is moved on the same file system takes none."""
    device = parent.stat().st_dev
    return sum(
        (sizes[file.path] // _BLOCK_BYTES + 1) * _BLOCK_BYTES
        for file in files
        if isinstance(file.source, bytes) or not file.move or file.source.stat().st_dev != device
    )


def check_destination(destination: Path) -> None:
    """Raise what `seal` would say of its destination, before hours of work are done for it: UserError, OutputError."""
    destination = Path(os.path.abspath(destination))
    with output_errors(destination):
        _check_replaceable(destination)
    if os.path.lexists(destination.parent):
        with private_directory(destination.parent, prefix=_prefix(destination), suffix=_SUFFIX):
            pass  # only writing there shows whether one may


def _check_replaceable(destination: Path) -> None:
    """Only a bundle, or an empty directory, may be replaced: anything else is somebody's work."""
    if not os.path.lexists(destination):
        return
    if not destination.is_symlink() and destination.is_dir():
        if not any(destination.iterdir()):
            return
        # One that is damaged may have lost its marker, or its manifest.
        for is_one in (check_marker, Manifest.read_beneath):
            with suppress(BundleError):
                is_one(BundleDirectory.open(destination))
                return
    raise UserError("exists and is not a bundle", where=str(destination), hint="choose another destination")


def _entry(file: BundleFile, digest: str, size: int) -> FileEntry:
    return FileEntry(file.path, size, digest, file.media_type, file.role, file.executable)


def _described(file: FileEntry) -> JsonObject:
    return {
        "path": file.path,
        "size": file.size,
        "sha256": file.sha256,
        "mediaType": file.media_type,
        "role": file.role,
        "executable": file.executable,
    }
