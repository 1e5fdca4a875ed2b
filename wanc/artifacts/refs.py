"""Refs: `refs/<name>` in the store names the records that the last build of a bundle was made of.

`<name>` is the bundle's, where that is in `bundles/` beside the store. A store that several outputs share has bundles
of one name elsewhere: the refs of those end in a digest of the place, and tell it. `recipe` is the file that was built.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from wanc.artifacts.files import read_small
from wanc.artifacts.located import place_in, text_of
from wanc.artifacts.records import ActionRecord, is_key
from wanc.errors import BundleError
from wanc.runtime.strict_json import JsonValue, parse_object


def read_ref(path: Path) -> list[str]:
    """The keys that a ref names. Raises BundleError when it is damaged, OSError when it cannot be read."""
    fields = parse_object(read_small(path), where=str(path))
    keys = fields.texts("keys")
    if not all(map(is_key, keys)):
        fields.refuse("keys", "holds something that is not 64 hex digits")
    return keys


def recipe_of(root: Path, bundle: Path) -> list[str]:
    """The names of the recipe's file that the last build to this place was of; none if the store does not know."""
    with suppress(OSError, BundleError):
        path = root / "refs" / ref_of(root, bundle)[0]
        fields = parse_object(read_small(path), where=str(path))
        return fields.texts("recipe") if "recipe" in fields.values else []
    return []


def read_place(path: Path) -> Path:
    """Where the bundle of a ref is, or was. Raises as `read_ref` does."""
    fields = parse_object(read_small(path), where=str(path))
    if "bundle" not in fields.values:
        return _beside(path.parents[1], path.name)
    return place_in(fields, "bundle")


def ref_of(root: Path, bundle: Path) -> tuple[str, dict[str, JsonValue]]:
    """The name of a bundle's ref in the store `root`, and what it says besides its keys."""
    if os.path.abspath(bundle) == os.path.abspath(_beside(root, bundle.name)):
        return bundle.name, {}
    place = text_of(bundle)
    digest = hashlib.sha256(place.encode()).hexdigest()
    return f"{bundle.name[:100]}.{digest[:16]}", {"bundle": place}


def _beside(root: Path, name: str) -> Path:
    return root.parent / "bundles" / name


def last_sealed(root: Path, bundle: Path) -> str | None:
    """The id of the bundle that the last build to this place has sealed from the store `root`; None if not known."""
    with suppress(OSError, BundleError):
        for key in read_ref(root / "refs" / ref_of(root, bundle)[0]):
            with suppress(OSError, BundleError):
                record = ActionRecord.parse(read_small(root / "actions" / f"{key}.json"), where=key)
                if record.bundle_id is not None:
                    return record.bundle_id
    return None


def build_seconds(root: Path, bundle: Path, bundle_id: str) -> float | None:
    """What the stages of a bundle took, each when it was computed; None where the store `root` does not know them all,
    or where the last build to this place was of another bundle.
    """
    with suppress(OSError, BundleError):
        keys = read_ref(root / "refs" / ref_of(root, bundle)[0])
        records = [ActionRecord.parse(read_small(root / "actions" / f"{key}.json"), where=key) for key in keys]
        seconds = [record.meta.get("seconds") for record in records]
        known = [float(one) for one in seconds if isinstance(one, (int, float)) and not isinstance(one, bool)]
        if len(known) == len(records) and any(record.bundle_id == bundle_id for record in records):
            return sum(known)
    return None
