"""Checking a store: every byte is read, and what is not what it says is set aside. So are the bundles beside it read.

Afterwards the store holds only what is true: a record whose content was damaged or is gone is a miss, and its stage
runs again. Content that no record names is no fault: a build that was killed leaves it, and a cleaning removes it.
Nor is a record whose content lay in a bundle that was deleted or replaced since: it only has had its day.

A bundle that is damaged stays where it is: somebody may run it, and its sound files may be all that there is of a blob.
The next build of it sets it aside.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from wanc.artifacts.files import hash_file, output_errors, read_small
from wanc.artifacts.located import read_note
from wanc.artifacts.locks import OnWait
from wanc.artifacts.records import ActionRecord, Blob
from wanc.artifacts.refs import read_place, read_ref
from wanc.artifacts.store import Store
from wanc.errors import BundleError, UserError
from wanc.runtime.manifest import MANIFEST, MARKER, Manifest
from wanc.runtime.safe_read import Progress, irregularity
from wanc.runtime.verify import verify

Read = TypeVar("Read")


BUNDLES = "../bundles/"
"""How paths begin that are in the bundles beside a store."""


@dataclass(frozen=True, order=True)
class Damage:
    """Something that was damaged: its path in the store, where it has been set aside, or in a bundle, where it has not
    (`../bundles/…`, or absolute where that is not beside the store); and what was wrong.
    """

    path: str
    reason: str

    @property
    def in_bundle(self) -> bool:
        return self.path.startswith((BUNDLES, "/"))


@dataclass(frozen=True)
class Checkup:
    """What a check found: the damage; sound records and blobs, and `orphans` among these that no record names; sound
    bundles; bytes read; and `outdated`, the records whose content was in bundles that are no more.
    """

    findings: tuple[Damage, ...]
    outdated: int
    records: int
    blobs: int
    orphans: int
    bytes: int
    bundles: int = 0

    @property
    def ok(self) -> bool:
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        findings = [{"path": finding.path, "reason": finding.reason} for finding in self.findings]
        sound = {"records": self.records, "blobs": self.blobs, "orphans": self.orphans, "bytes": self.bytes}
        return {"ok": self.ok, "findings": findings, "outdated": self.outdated, **sound}

    def as_text(self) -> str:
        lines = [f"{finding.path}: {finding.reason}" for finding in self.findings]
        inside = sum(finding.in_bundle for finding in self.findings)
        if outside := len(lines) - inside:
            lines.append(f"{outside} damaged, set aside in quarantine/: a build makes them again")
        if inside:
            lines.append(f"{inside} damaged in bundles: do not run them, a build makes them again")
        if self.outdated:
            lines.append(f"{self.outdated} outdated: their files were in bundles that were deleted or replaced")
        orphans = f" ({self.orphans} of them named by no record)" if self.orphans else ""
        count = f"{self.records} record{_s(self.records)} and {self.blobs} blob{_s(self.blobs)}"
        sound = f"{count}{orphans} are sound, {self.bytes / 2**20:.1f} MiB read"
        bundles = [f"{self.bundles} bundle{_s(self.bundles)} {'is' if self.bundles == 1 else 'are'} sound"]
        return "\n".join([*lines, sound, *(bundles if self.bundles else [])])


def check(root: Path, *, progress: Progress | None = None, on_wait: OnWait | None = None) -> Checkup:
    """Read everything in the store `root`, and set aside what is damaged.

    Waits until no build runs, and keeps builds waiting. `progress` is called with (bytes done, bytes in total).
    Raises UserError where there is no store, or another version's; OutputError when it cannot be written.
    """
    store = Store.existing(root)
    with store.alone(on_wait), output_errors(store.root):
        return _StoreCheck(store, progress).run()


class _StoreCheck:
    """One pass over a store that nobody changes meanwhile."""

    def __init__(self, store: Store, progress: Progress | None) -> None:
        self._store = store
        self._progress = progress
        self._findings: list[Damage] = []
        self._outdated = 0
        self._done = self._total = 0
        self._bundles = 0
        self._verified: dict[Path, Blob] = {}  # the files of sound bundles

    def run(self) -> Checkup:
        records = {path: record for path in self._entries("actions") if (record := self._sound(path, _record))}
        for path in self._entries("refs"):
            if self._sound(path, read_ref) is not None:
                self._sound(path, read_place)
        for path in self._entries("located"):
            self._sound(path, read_note)
        named = {blob for record in records.values() for blob in record.files.values()}
        paths = self._entries("blobs/sha256/*")
        names = {path.name for path in paths}
        self._total = sum(path.lstat().st_size for path in paths)
        self._total += sum(blob.size for blob in named if blob.hex not in names)
        bundles = self._bundles_beside()
        self._total += sum(file.size for manifest in bundles.values() if manifest for file in manifest.files)
        for bundle, manifest in bundles.items():
            self._verify(bundle, manifest, {record.bundle_id for record in records.values()})
        stored = {blob for path in paths if (blob := self._sound(path, self._stored))}
        # What is stored is used from there: a note of another place is then of no use, and no fault.
        located = {blob for blob in named - stored if self._is_located(blob)}
        kept = [path for path, record in records.items() if self._is_complete(path, record, stored | located)]
        findings = tuple(sorted(self._findings))
        return Checkup(
            findings,
            self._outdated,
            len(kept),
            len(stored | located),
            len(stored - named),
            bytes=self._done,
            bundles=self._bundles,
        )

    def _bundles_beside(self) -> dict[Path, Manifest | None]:
        """What stands where builds that refs name have sealed; None for what cannot be read."""
        paths = [read_place(path) for path in self._entries("refs")]
        found: dict[Path, Manifest | None] = {}
        for path in (path for path in paths if path.is_dir() and any(path.iterdir())):
            found[path] = None
            with suppress(BundleError):
                found[path] = Manifest.read(path)
        return found

    def _verify(self, bundle: Path, manifest: Manifest | None, sealed: Set[str | None]) -> None:
        """Read a bundle whole."""
        before = self._done
        place = f"{BUNDLES}{bundle.name}" if bundle.parent == self._store.root.parent / "bundles" else str(bundle)
        report = verify(bundle, lambda done, _: self._read(before + done - self._done))
        damage = [Damage(f"{place}/{failure.path}", failure.reason) for failure in report.failures]
        if not damage and report.id not in sealed:
            damage.append(Damage(f"{place}/{MANIFEST}", "is not that of a bundle which was sealed from this store"))
        self._findings += damage
        if manifest is not None and not damage:
            self._bundles += 1
            self._verified |= {bundle.resolve() / file.path: Blob(file.sha256, file.size) for file in manifest.files}

    def _entries(self, pattern: str) -> list[Path]:
        return sorted(self._store.root.glob(f"{pattern}/*"))

    def _sound(self, path: Path, read: Callable[[Path], Read]) -> Read | None:
        """What a file of the store says; None when it is damaged, and then it is set aside."""
        try:
            return read(path)
        except UserError as error:
            reason = error.message
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
        self._set_aside(path, reason)
        return None

    def _set_aside(self, path: Path, reason: str) -> None:
        self._findings.append(Damage(path.relative_to(self._store.root).as_posix(), reason))
        self._store.set_aside(path)

    def _stored(self, path: Path) -> Blob:
        fault = irregularity(path.lstat())
        if fault:
            raise BundleError(fault)
        blob = Blob(*hash_file(path, self._read))
        if self._store.place(blob) != path:
            raise BundleError("is not the content that its name says")
        return blob

    def _is_located(self, blob: Blob) -> bool:
        """Whether the content lies where a note says."""
        note = self._note(blob)
        if not note.exists():
            return False
        place, _ = read_note(note)
        if self._verified.get(place.resolve()) == blob:
            self._total -= blob.size  # read with its bundle
            return True
        if self._store.find(blob) and self._sound(note, lambda _: Blob(*hash_file(place, self._read))) == blob:
            return True
        if note.exists() and _is_claimed(blob, place):
            self._set_aside(note, f"{place} is not the content that was stored")
        return False

    def _is_complete(self, path: Path, record: ActionRecord, sound: Set[Blob]) -> bool:
        """Whether all content of a record is sound; if not, it is set aside."""
        lost = {name: blob for name, blob in sorted(record.files.items()) if blob not in sound}
        # A note that still stands was found in order: it is what it names that went away.
        damaged = [name for name, blob in lost.items() if not self._note(blob).exists()]
        if damaged:
            self._set_aside(path, f"{damaged[0]} of stage {record.stage} is damaged or gone")
        elif lost:
            self._outdated += 1
            self._store.set_aside(path)
        return not lost

    def _note(self, blob: Blob) -> Path:
        return self._store.root / "located" / f"{blob.hex}.json"

    def _read(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(min(self._done, self._total), self._total)


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _is_claimed(blob: Blob, place: Path) -> bool:
    """Whether the bundle around `place`, if there still is one, says that this content lies there."""
    for root in place.parents:
        if (root / MARKER).exists():
            try:
                files = Manifest.read(root).files
            except BundleError:
                return True  # damaged itself
            return (place.relative_to(root).as_posix(), blob.digest) in {(file.path, file.sha256) for file in files}
    return False


def _record(path: Path) -> ActionRecord:
    record = ActionRecord.parse(read_small(path), where=str(path))
    if path.name != f"{record.key}.json":
        raise BundleError("is the record of another key")
    return record
