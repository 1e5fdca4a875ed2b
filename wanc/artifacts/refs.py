"""Refs: `refs/<name>` in the store names the records that the last build of a bundle was made of."""

from __future__ import annotations

from pathlib import Path

from wanc.artifacts.files import read_small
from wanc.artifacts.records import is_key
from wanc.runtime.strict_json import parse_object


def read_ref(path: Path) -> list[str]:
    """The keys that a ref names. Raises BundleError when it is damaged, OSError when it cannot be read."""
    fields = parse_object(read_small(path), where=str(path))
    keys = fields.texts("keys")
    if not all(map(is_key, keys)):
        fields.refuse("keys", "holds something that is not 64 hex digits")
    return keys
