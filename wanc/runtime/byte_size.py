"""Sizes in bytes as people write them: `6GiB`."""

from __future__ import annotations

import re

from .errors import UserError

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,3}})?) ?({'|'.join(UNITS)})")
_BYTES = re.compile(r"[0-9]{1,16}")
EXAMPLES = "such as 8GiB or 512MiB"


def size_with_unit(text: str) -> int | None:
    """The bytes of a number with a unit; None where it is none."""
    found = _SIZE.fullmatch(text)
    return round(float(found[1]) * UNITS[found[2]]) if found else None


def byte_size(text: str) -> int:
    """The bytes of a number, with a unit or without. Raises UserError for what is none, and for no bytes at all."""
    size = int(text) if _BYTES.fullmatch(text) else size_with_unit(text)
    if not size:
        raise UserError(f"{ascii(text)[:80]} is no size in bytes", hint=EXAMPLES)
    return size
