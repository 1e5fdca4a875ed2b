"""Refs: `refs/<name>` in the store names the records that the last build of a bundle was made of."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from wanc.artifacts.files import read_small
from wanc.artifacts.records import ActionRecord, is_key
from wanc.errors import BundleError
from wanc.runtime.strict_json import parse_object


def read_ref(path: Path) -> list[str]:
    """The keys that a ref names. Raises BundleError when it is damaged, OSError when it cannot be read."""
    fields = parse_object(read_small(path), where=str(path))
    keys = fields.texts("keys")
    if not all(map(is_key, keys)):
        fields.refuse("keys", "holds something that is not 64 hex digits")
    return keys


def recipe_of(root: Path, name: str) -> list[str]:
    """The names of the recipe's file that the last build of this name was of in the store `root`; none if not known."""
    with suppress(OSError, BundleError):
        path = root / "refs" / name
        fields = parse_object(read_small(path), where=str(path))
        return fields.texts("recipe") if "recipe" in fields.values else []
    return []


def last_sealed(root: Path, name: str) -> str | None:
    """The id of the bundle that the last build of this name has sealed from the store `root`; None if not known."""
    with suppress(OSError, BundleError):
        for key in read_ref(root / "refs" / name):
            with suppress(OSError, BundleError):
                record = ActionRecord.parse(read_small(root / "actions" / f"{key}.json"), where=key)
                if record.bundle_id is not None:
                    return record.bundle_id
    return None
