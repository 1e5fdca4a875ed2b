"""Reading the small files that describe others: whole, once, and bounded."""

from __future__ import annotations

from pathlib import Path

from wanc.artifacts.files import opened_input
from wanc.errors import BundleError
from wanc.runtime.strict_json import MAX_BYTES, JsonObject, parse_object

MAX_VALUES = 100_000
"""A wrong one costs up to 1,500 bytes of memory until it is refused; a model of 3,000 weights has 30,000."""


def read_small(path: Path) -> bytes:
    """The bytes of a file of at most 16 MiB. Raises UserError when it cannot be read, BundleError when it is larger."""
    with opened_input(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BundleError(f"larger than the {MAX_BYTES} bytes allowed", where=str(path))
    return data


def read_json(path: Path) -> JsonObject:
    """The JSON object in a file.

    Raises UserError as `read_small` and `strict_json.parse` do, BundleError for more than 100,000 values.
    """
    data = read_small(path)
    # Every value but the first of a list or an object stands behind a comma.
    if sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise BundleError(f"more than the {MAX_VALUES} values allowed", where=str(path))
    return parse_object(data, where=str(path)).values
