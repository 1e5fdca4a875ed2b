"""The content-addressed store: what the stages of a build made, by what they were made from.

    VERSION              "wanc-store 1"
    blobs/sha256/ab/…    content, mode 0444, named by its digest; never changed once there
    located/<hex>.json   where a large blob lies that is kept outside (see `located`)
    actions/<key>.json   the record of one run; written last, so that it is the commit point
    refs/<name>          {"keys": […]}: records that a cleaning must keep (see `refs`)
    tmp/<random>/        private working directories, swept when their owner is gone (and see `moves`)
    scratch/<key>/       what a stage that was stopped had finished; who holds the key's lock may use it
    locks/               lock files; they hold nothing: `store` for a session, `sealing`, one for each key
    quarantine/          what was found damaged, kept for people to look at

A record that is absent, unreadable, or names content that is not there is a miss, never a crash and never half a hit.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import stat
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from wanc.artifacts.canonical import canonical, key_of
from wanc.artifacts.files import hash_file, identity_text, output_errors, read_small, replace_file, sync_directory
from wanc.artifacts.located import Located
from wanc.artifacts.locks import OnWait, held, release, try_lock
from wanc.artifacts.mounts import file_system, is_remote
from wanc.artifacts.moves import Announce, Move, undo_journal, write_journal
from wanc.artifacts.private import abandoned, private_directory
from wanc.artifacts.records import ActionRecord, Blob, is_key
from wanc.errors import EXIT_DATA, EXIT_NO_INPUT, BundleError, OutputError, UserError
from wanc.runtime.manifest import is_component
from wanc.runtime.safe_read import OnBytes, irregularity
from wanc.runtime.strict_json import JsonValue

VERSION_LINE = "wanc-store 1"
_DIRECTORIES = ("blobs/sha256", "located", "actions", "refs", "tmp", "scratch", "locks", "quarantine")
_log = logging.getLogger(__name__)


class DamagedBlobError(UserError):
    """Content that a record names and that is gone or no longer what it was. It has been set aside."""

    exit_code = EXIT_DATA


class Store:
    """A store directory. Open it with `Store.open`; any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._located = Located(root / "located")
        # What a file looked like when this process has seen its digest to be true.
        self._checked: dict[tuple[str, Path], str] = {}
        self._is_sealing = False

    @classmethod
    def open(cls, root: Path) -> Store:
        """The store in `root`, which is created when missing; working directories of dead processes are removed.

        Raises UserError when `root` holds something else or another version's store, OutputError when it cannot be
        written.
        """
        root = Path(os.path.abspath(root))
        with output_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            _check_version(root)
            for name in _DIRECTORIES:
                (root / name).mkdir(parents=True, exist_ok=True)
            if os.stat(root / "tmp").st_dev != os.stat(root / "blobs/sha256").st_dev:
                raise OutputError("tmp/ and blobs/ must be on one file system", where=str(root))
            _warn_if_remote(root)
            store = cls(root)
            # While a seal runs, others' sweeps can wait: what it moves must not be taken for what a dead one left.
            if any((root / "tmp").iterdir()) and (lock := try_lock(store._sealing_lock)) is not None:
                try:
                    store._sweep()
                finally:
                    release(lock)
        return store

    @classmethod
    def existing(cls, root: Path) -> Store:
        """The store in `root`, which must be there: looking makes none. Raises UserError as `open` does."""
        if not (root / "VERSION").is_file():
            raise UserError(
                "there is no store here yet", where=str(root), hint="`wanc build` makes one", exit_code=EXIT_NO_INPUT
            )
        return cls.open(root)

    def session(self, on_wait: OnWait | None = None) -> AbstractContextManager[None]:
        """Keep the store from being cleaned for the length of a build. Raises UserError after the lock time-out."""
        return held(self.root / "locks/store", shared=True, on_wait=on_wait)

    def alone(self, on_wait: OnWait | None = None) -> AbstractContextManager[None]:
        """Keep every build out, to look at the store as a whole. Raises UserError after the lock time-out."""
        return held(self.root / "locks/store", on_wait=on_wait)

    def action_lock(self, key: str, on_wait: OnWait | None = None) -> AbstractContextManager[None]:
        """Keep other processes from computing `key`: look it up again once inside.

        `on_wait` gets one line for people when there is a wait. Raises UserError after the lock time-out.
        """
        return held(self.root / "locks" / _checked_key(key), on_wait=on_wait)

    @contextmanager
    def sealing(self, on_wait: OnWait | None = None) -> Generator[Announce]:
        """Seal bundles from this store's content, one process at a time; look the seal up again once inside.

        Yields what `seal` must announce its moves to: from then on they are found in the bundle, or put back when the
        seal dies. Raises UserError after the lock time-out.
        """
        with held(self._sealing_lock, on_wait=on_wait):
            self._sweep()
            with self.workdir() as workdir:

                def announce(moves: Sequence[Move]) -> None:
                    for move in moves:
                        blob = Blob(f"sha256:{move.source.name}", move.source.stat().st_size)
                        if move.source == self.place(blob):
                            self._located.record(blob, move.final, workdir=workdir)
                    write_journal(workdir, moves)

                self._is_sealing = True
                try:
                    yield announce
                finally:
                    self._is_sealing = False

    def workdir(self) -> AbstractContextManager[Path]:
        """A private directory on the store's file system, removed at the end. Raises OutputError."""
        return private_directory(self.root / "tmp")

    def scratch(self, key: str) -> Path:
        """The folder in which the computation of `key` keeps what it has finished, for who holds its lock."""
        path = self.root / "scratch" / _checked_key(key)
        if path.is_symlink() or (os.path.lexists(path) and not path.is_dir()):
            _log.warning("%s is not the folder that it was: it is set aside", path)
            self.set_aside(path)
        with output_errors(path):
            path.mkdir(exist_ok=True)
        return path

    def drop_scratch(self, key: str) -> None:
        """Remove that folder: the result is recorded."""
        shutil.rmtree(self.scratch(key))

    def lookup(self, key: str) -> ActionRecord | None:
        """The record of `key`, if all its content is there in the right sizes; otherwise None.

        What is damaged is set aside with a warning. Digests are left to `path`, so that a hit stays cheap. Where
        content is missing, a running seal is waited for, which may be moving it.
        """
        record = self._read_record(self._action(key))
        if record is None:
            return None
        if self._missing(record):
            with held(self._sealing_lock):
                self._sweep()
                missing = self._missing(record)
            if missing:
                _log.warning("%s of stage %s is gone from the store: it will be made again", missing[0], record.stage)
                self.set_aside(self._action(key))
                return None
        with suppress(OSError):
            os.utime(self._action(key))  # a cleaning goes by when something was last of use
        return record

    def commit(
        self,
        key: str,
        *,
        stage: str,
        document: Mapping[str, JsonValue],
        tree: Path,
        meta: Mapping[str, JsonValue],
        on_bytes: OnBytes | None = None,
    ) -> ActionRecord:
        """Adopt every file below `tree` (in a workdir of this store) and then record them under `key`.

        `document` is the key document, and `key` must be its `key_of`. Files are moved, not copied; `on_bytes`
        follows their hashing. Raises OutputError when the store cannot be written, and then `key` stays unrecorded;
        ValueError when the tree holds anything but regular files with the names that a bundle allows.
        """
        if key != key_of(document):
            raise ValueError(f"{key} is not the key of its document")
        with output_errors(self.root):
            sources = _regular_files(tree)
            files = {path: self._adopt(source, on_bytes) for path, source in sources.items()}
            for directory in {self.place(blob).parent for blob in files.values()}:
                sync_directory(directory)
        record = ActionRecord(key, stage, document, files, meta)
        data = record.to_bytes()
        try:
            ActionRecord.parse(data, where=stage)
        except BundleError as error:
            raise ValueError(f"stage {stage} made a record that could not be read back: {error}") from error
        with self.workdir() as workdir:
            replace_file(self._action(key), data, workdir=workdir)
        return record

    def path(self, blob: Blob, on_bytes: OnBytes | None = None) -> Path:
        """Where the content lies: read it there, never write. Its digest is checked once per process and change.

        `on_bytes` follows that check. Raises DamagedBlobError when the content is missing or wrong; what is wrong has
        then been set aside, so that the next `lookup` of its record misses.
        """
        path = self.find(blob) or self._find_behind_seals(blob)
        if path is None:
            raise DamagedBlobError(f"{blob.digest} is gone from the store", where=str(self.root), hint=_AGAIN)
        looks = _looks(path)
        if self._checked.get((blob.digest, path)) != looks:
            if hash_file(path, on_bytes)[0] != blob.digest:
                _log.warning("%s is damaged: it is set aside and will be made again", path)
                self._discard(blob, path)
                raise DamagedBlobError("is damaged: not the content that was stored", where=str(path), hint=_AGAIN)
            self._checked[blob.digest, path] = looks
        return path

    def is_stored(self, blob: Blob) -> bool:
        """Whether the content lies in the store itself, where a seal may adopt it by renaming."""
        return self.find(blob) == self.place(blob)

    def relocate(self, blob: Blob, path: Path) -> None:
        """Note that the content now lies at `path`, where a seal moved it. Raises OutputError."""
        with self.workdir() as workdir:
            self._located.record(blob, path, workdir=workdir)

    def records(self) -> Iterator[ActionRecord]:
        """All readable records, by key. What they name may be gone."""
        for path in sorted((self.root / "actions").glob("*.json")):
            record = self._read_record(path)
            if record:
                yield record

    def set_ref(self, name: str, keys: Iterable[str], **others: JsonValue) -> None:
        """Name records that a cleaning must keep, in place of those that had the name; `others` is kept beside them.

        Raises OutputError.
        """
        if not is_component(name):
            raise ValueError(f"{name!r} cannot name a ref")
        data = canonical({"keys": [*sorted(map(_checked_key, keys))], **others})
        with self.workdir() as workdir:
            replace_file(self.root / "refs" / name, data, workdir=workdir)

    def _adopt(self, source: Path, on_bytes: OnBytes | None) -> Blob:
        """Move a file in as a blob. Renaming it over the same content is harmless, and mends it if it was damaged."""
        blob = Blob(*hash_file(source, on_bytes))
        target = self.place(blob)
        target.parent.mkdir(exist_ok=True)
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fchmod(descriptor, 0o444)
            os.utime(descriptor)  # a stage may have copied times along with content
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        source.rename(target)
        self._checked[blob.digest, target] = _looks(target)
        return blob

    def _sweep(self) -> None:
        """Remove working directories of the dead; what a dead seal was moving goes back. For who holds the lock."""
        for workdir in abandoned(self.root / "tmp"):
            undo_journal(workdir)

    def _missing(self, record: ActionRecord) -> list[str]:
        return [path for path, blob in record.files.items() if self.find(blob) is None]

    def find(self, blob: Blob) -> Path | None:
        """A file of the right size for the blob, stored or located. A stored one of another size is set aside."""
        stored = self.place(blob)
        with suppress(OSError):
            status = os.lstat(stored)
            if status.st_size == blob.size and (irregularity(status) is None or self._is_lent(stored)):
                return stored
            _log.warning("%s is damaged: it is set aside", stored)
            self.set_aside(stored)
        return self._located.find(blob)

    def _is_lent(self, stored: Path) -> bool:
        """Whether all other names of a stored file are the store's own: what a stage laid out for itself, below tmp/.

        Builds beside this one make and remove such names meanwhile, so that they are counted more than once.
        """
        for _ in range(_COUNTS):
            status = os.lstat(stored)
            if not stat.S_ISREG(status.st_mode):
                return False
            if status.st_nlink - 1 <= _count_names(self.root / "tmp", status):
                return True
        return False

    def _find_behind_seals(self, blob: Blob) -> Path | None:
        """The same once no other process seals: content that it moves is for a moment at neither place."""
        if self._is_sealing:
            return None
        with held(self._sealing_lock):
            return self.find(blob)

    def _discard(self, blob: Blob, path: Path) -> None:
        if path == self.place(blob):
            self.set_aside(path)
        else:
            self._located.forget(blob)

    def _read_record(self, path: Path) -> ActionRecord | None:
        try:
            record = ActionRecord.parse(read_small(path), where=str(path))
            if f"{record.key}.json" == path.name:
                return record
            reason = "it is the record of another key"
        except FileNotFoundError:
            return None
        except (OSError, BundleError) as error:
            reason = str(error)
        _log.warning("a record of the store is damaged and set aside: %s", reason)
        self.set_aside(path)
        return None

    def set_aside(self, path: Path, name: str | None = None) -> None:
        """Move what is damaged to quarantine/, under its own name or another."""
        target = self.root / "quarantine" / f"{name or path.name}.{secrets.token_hex(4)}"
        try:
            path.rename(target)
            os.utime(target, follow_symlinks=False)  # a cleaning leaves it for some days
        except FileNotFoundError:
            pass  # another process was first
        except OSError as error:
            _log.warning("%s cannot be set aside: %s", path, error)

    @property
    def _sealing_lock(self) -> Path:
        return self.root / "locks/sealing"

    def place(self, blob: Blob) -> Path:
        """Where the content lies if it is stored."""
        return self.root / "blobs/sha256" / blob.hex[:2] / blob.hex

    def _action(self, key: str) -> Path:
        return self.root / "actions" / f"{_checked_key(key)}.json"


_COUNTS = 10
_AGAIN = "run the build again: the stage that made it will be run again"


def _looks(path: Path) -> str:
    """What tells a change of a file, short of damage done beneath the file system."""
    try:
        return identity_text(os.stat(path))
    except OSError:
        return ""  # never equal to what was noted: it is looked for again


def _count_names(folder: Path, wanted: os.stat_result) -> int:
    """How many names a file has below a folder, in which others work."""
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                found += os.path.samestat(os.lstat(os.path.join(place, name)), wanted)
    return found


def _checked_key(key: str) -> str:
    if not is_key(key):
        raise ValueError(f"{key!r} is not the key of an action: 64 hex digits")
    return key


def _check_version(root: Path) -> None:
    version = root / "VERSION"
    try:
        line = read_small(version, 200).decode("utf-8", "replace").split("\n")[0]
    except FileNotFoundError:
        strangers = {path.name for path in root.iterdir()} - {name.split("/")[0] for name in _DIRECTORIES}
        if strangers:
            raise UserError(
                "is neither empty nor a store of wanc", where=str(root), hint="choose another directory for the store"
            ) from None
        _write_version(root)
        return
    if line != VERSION_LINE:
        raise UserError(
            f"says {ascii(line)[:80]}, not {VERSION_LINE!r}",
            where=str(version),
            hint="this store belongs to another version of wanc: choose another directory for this one",
        )


def _write_version(root: Path) -> None:
    (root / "tmp").mkdir(exist_ok=True)
    with private_directory(root / "tmp") as workdir:
        replace_file(root / "VERSION", f"{VERSION_LINE}\n".encode(), workdir=workdir)


def _regular_files(tree: Path) -> dict[str, Path]:
    """The files below `tree` by their relative paths. Raises ValueError for links and other special files."""
    files: dict[str, Path] = {}
    for directory, names, leaves in os.walk(tree):
        links = [name for name in names if Path(directory, name).is_symlink()]  # os.walk takes them for directories
        for leaf in leaves + links:
            path = Path(directory, leaf)
            fault = irregularity(os.lstat(path))
            if fault:
                raise ValueError(f"{path} {fault}: a stage must make regular files")
            files[path.relative_to(tree).as_posix()] = path
    return files


def _warn_if_remote(root: Path) -> None:
    """flock between machines depends on the server, and a store whose locks do not lock computes things twice."""
    kind = file_system(root)
    if is_remote(kind):
        _log.warning("%s lies on %s: let only one machine use it at a time", root, kind)
