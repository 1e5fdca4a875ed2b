"""Cleaning a store: what neither a ref names nor the last days used is removed.

A record keeps its files, a ref keeps its records, and using a record makes it young (`Store.lookup`). Ages come from
modification times, which the store sets itself; one in the future counts as young, so that a clock that was wrong can
only keep too much. Records go before what they name: a cleaning that is killed leaves orphans, never half a hit.
"""

from __future__ import annotations

import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanc.artifacts.files import output_errors, read_small, sync_directory
from wanc.artifacts.locks import OnWait
from wanc.artifacts.private import LOCK_NAME
from wanc.artifacts.records import ActionRecord, is_key
from wanc.artifacts.refs import read_ref
from wanc.artifacts.store import Store
from wanc.errors import BundleError
from wanc.runtime.safe_read import Progress

_DAY_SECONDS = 86400.0
KINDS = 7
"""Of things that a cleaning removes, one after the other."""


@dataclass(frozen=True)
class Removal:
    """Things of one kind that go, or that would go: how many, and how many bytes they free."""

    kind: str
    count: int
    bytes: int


@dataclass(frozen=True)
class Cleaning:
    """What a cleaning removed; with `dry_run`, what it would remove."""

    groups: tuple[Removal, ...]
    dry_run: bool

    @property
    def bytes(self) -> int:
        return sum(group.bytes for group in self.groups)

    def as_json(self) -> dict[str, Any]:
        removed = {group.kind: {"count": group.count, "bytes": group.bytes} for group in self.groups}
        return {"dry_run": self.dry_run, "bytes": self.bytes, "removed": removed}

    def as_text(self) -> str:
        found = [group for group in self.groups if group.count]
        lines = [f"{group.kind:<11} {group.count:>6} {group.bytes / 2**20:>10.1f} MiB" for group in found]
        verb = "would be freed" if self.dry_run else "freed"
        return "\n".join([*lines, f"{self.bytes / 2**20:.1f} MiB {verb}"])


def clean(
    root: Path,
    *,
    days: int,
    dry_run: bool = False,
    progress: Progress | None = None,
    on_wait: OnWait | None = None,
) -> Cleaning:
    """Remove what no ref needs and nothing used for `days` days, of which there is at least one.

    Waits until no build runs, and keeps builds waiting. `progress` is called with (kinds of things done, all kinds).
    Raises UserError where there is no store, BundleError when a ref or a record is damaged, OutputError when something
    cannot be removed; then what was removed stays removed.
    """
    if days < 1:
        raise ValueError("what is younger than a day is never removed")
    store = Store.existing(root)
    with store.alone(on_wait), output_errors(store.root):
        groups: list[Removal] = []
        for done, (kind, paths) in enumerate(_garbage(store.root, time.time() - days * _DAY_SECONDS), 1):
            sizes = [_bytes(path) for path in paths]
            groups.append(Removal(kind, len(sizes), sum(sizes)))
            if not dry_run:
                _remove(paths)
            if progress:
                progress(done, KINDS)
    return Cleaning(tuple(groups), dry_run)


def _garbage(root: Path, since: float) -> Iterator[tuple[str, list[Path]]]:
    """What can go, by kind and in the order in which it must go."""
    try:
        kept, records = _mark(root, since)
    except BundleError as error:
        raise BundleError(
            "what is needed cannot be told, so nothing is removed", where=str(root), hint="run `wanc store fsck` first"
        ) from error
    named = {blob.hex for record in kept for blob in record.files.values()}
    yield "records", records
    yield "notes", [path for path in _stale(root.glob("located/*"), since) if path.stem not in named]
    yield "blobs", [path for path in _stale(root.glob("blobs/sha256/*/*"), since) if path.name not in named]
    yield "locks", [path for path in _stale(root.glob("locks/*"), since) if is_key(path.name)]
    yield "scratch", _stale(root.glob("scratch/*"), since)
    yield "quarantine", _stale(root.glob("quarantine/*"), since)
    # What has a lock file is in use, or was swept when the store was opened.
    yield "workdirs", [path for path in _stale(root.glob("tmp/*"), since) if not (path / LOCK_NAME).exists()]


def _mark(root: Path, since: float) -> tuple[list[ActionRecord], list[Path]]:
    """The records that stay, and the files of those that go."""
    needed = {key for path in root.glob("refs/*") for key in read_ref(path)}
    paths = [path for path in root.glob("actions/*.json") if is_key(path.stem)]
    going = [path for path in _stale(paths, since) if path.stem not in needed]
    staying = set(paths) - set(going)
    return [ActionRecord.parse(read_small(path), where=str(path)) for path in sorted(staying)], going


def _stale(paths: Iterable[Path], since: float) -> list[Path]:
    return [path for path in sorted(paths) if path.lstat().st_mtime < since]


def _bytes(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(found.lstat().st_size for found in path.rglob("*") if stat.S_ISREG(found.lstat().st_mode))


def _remove(paths: list[Path]) -> None:
    for path in paths:
        with output_errors(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    for directory in {path.parent for path in paths}:
        with output_errors(directory):
            sync_directory(directory)
