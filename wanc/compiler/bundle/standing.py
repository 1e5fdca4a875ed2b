"""What stands where a bundle is to be: read whole, for nothing that is read from a bundle is trusted by its looks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wanc.artifacts.refs import last_sealed
from wanc.artifacts.store import Store
from wanc.errors import BundleError
from wanc.runtime.manifest import Manifest
from wanc.runtime.safe_read import Progress
from wanc.runtime.verify import verify


@dataclass(frozen=True)
class Standing:
    """Whether the bundle that is wanted stands somewhere, without a fault; `damage` is what is wrong with one that is
    no longer what was sealed.
    """

    is_wanted: bool = False
    damage: str | None = None


def look_at(destination: Path, wanted: str | None, store: Store, progress: Progress | None = None) -> Standing:
    """What stands at `destination`, where `wanted` is the id of the bundle that should; None where none was made yet.

    `progress` is called with (bytes done, bytes in total). Of a sound bundle of another id it is not asked what is in
    it: it is to be replaced.
    """
    if not os.path.isdir(destination) or not os.listdir(destination):
        return Standing()
    try:
        found = Manifest.read(destination).id
    except BundleError as error:
        return Standing(damage=error.message)
    if found != wanted:
        # Another recipe of this name, or another version of it: or one whose manifest was changed where it stands.
        is_strange = last_sealed(store.root, destination) not in (None, found) and not _was_sealed(found, store)
        return Standing(damage="is not a bundle that was sealed here" if is_strange else None)
    report = verify(destination, progress)
    if report.ok:
        return Standing(is_wanted=True)
    first, *others = report.failures
    return Standing(damage=f"{first.path} {first.reason}" + (f", and {len(others)} more" if others else ""))


def _was_sealed(bundle_id: str, store: Store) -> bool:
    return any(record.bundle_id == bundle_id for record in store.records())
