"""What stands where a bundle is to be: read whole, for nothing that is read from a bundle is trusted by its looks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wanc.artifacts.refs import last_sealed, recipe_of
from wanc.artifacts.store import Store
from wanc.errors import EXIT_USAGE, BundleError
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
        is_strange = _is_strange(found, destination, store)
        return Standing(damage="is not a bundle that was sealed here" if is_strange else None)
    report = verify(destination, progress)
    if report.ok:
        return Standing(is_wanted=True)
    first, *others = report.failures
    return Standing(damage=f"{first.path} {first.reason}" + (f", and {len(others)} more" if others else ""))


def check_owner(destination: Path, recipe: Path, recipe_sha256: str, model: str, store: Store) -> None:
    """Raises UserError where the bundle that stands at `destination` is somebody else's, who would miss it.

    It is this recipe's own where the last build of its name in this store was of the same file, `recipe`, or where
    recipe and model are what it was made of; `recipe_sha256` and `model` are their digests. What is damaged is not
    looked at: that is set aside.
    """
    try:
        found = Manifest.read(destination)
    except BundleError:
        return
    says_the_same = found.recipe_sha256 == recipe_sha256
    if last_sealed(store.root, destination) == found.id or _was_sealed(found.id, store):
        owner = recipe_of(store.root, destination)
        is_own = not owner or not {*owner}.isdisjoint(recipe_names(recipe, store))
        is_own = is_own or (says_the_same and any(parent.get("digest") == model for parent in found.parents))
        origin = f"the bundle of {owner[0]}" if owner else ""
    else:
        is_own, origin = says_the_same, "a bundle that this store has not sealed"
    if is_own:
        return
    raise BundleError(
        f"{origin} stands here, and would be replaced",
        where=str(destination),
        hint="give this one another name, with `name:` or --set name=…, or say --replace",
        exit_code=EXIT_USAGE,
    )


def recipe_names(recipe: Path, store: Store) -> tuple[str, str]:
    """What a store knows a recipe's file by: its path, and that from the store, for the two may be moved together."""
    path = os.path.realpath(recipe)
    return path, os.path.relpath(path, os.path.realpath(store.root))


def id_at(destination: Path, store: Store) -> str | None:
    """The id of the bundle at `destination`; None where there is none, or what stands there will be set aside."""
    try:
        found = Manifest.read(destination).id
    except BundleError:
        return None
    return None if _is_strange(found, destination, store) else found


def _is_strange(found: str, destination: Path, store: Store) -> bool:
    """Whether a bundle was sealed to this place, and it is not the one found."""
    return last_sealed(store.root, destination) not in (None, found) and not _was_sealed(found, store)


def _was_sealed(bundle_id: str, store: Store) -> bool:
    return any(record.bundle_id == bundle_id for record in store.records())
