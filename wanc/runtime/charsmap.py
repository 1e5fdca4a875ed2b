"""The characters' map of a SentencePiece normalizer, as `tokenizer.json` carries it: checked before it is followed.

It is a double-array trie (Aoe, 1989, in the form of darts-clone: 32-bit units after their length in bytes) over UTF-8,
whose values are places in the text that follows it; a replacement ends at a NUL. The library that follows it does not
look where a damaged unit leads.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 2**20  # the one that umT5 has takes a quarter of that
MOST_EXPANSION = 12  # bytes out for one in: Unicode's longest compatibility mapping makes 33 of 3
CHUNK = 4096

Units = NDArray[np.int64]


def charsmap_fault(encoded: str) -> str | None:
    """Why this base64 text is no map that can be followed for any text, or None when it is one."""
    if len(encoded) > MOST_BYTES * 4 // 3 + 4:
        return f"is longer than the {MOST_BYTES} bytes allowed"
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return "is not base64"
    size = int.from_bytes(data[:4], "little")
    if len(data) < 8 or size % 4 or not 4 <= size <= len(data) - 4:
        return f"says {size} bytes of a trie, and has {max(len(data) - 4, 0)} in all"
    units, text = np.frombuffer(data, "<u4", size // 4, 4).astype(np.int64), data[4 + size :]
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return "has replacements that are not UTF-8"
    return _Trie(units, text).fault()


class _Trie:
    """What can be reached of a trie, level by level: a level is as many bytes of text as lead there."""

    def __init__(self, units: Units, text: bytes) -> None:
        self._units = units
        padded = np.frombuffer(text + b"\0", np.uint8)
        ends = np.flatnonzero(padded == 0)
        self._lengths = ends[np.searchsorted(ends, np.arange(len(padded)))] - np.arange(len(padded))
        self._starts = (padded & 0xC0) != 0x80

    def fault(self) -> str | None:
        seen = np.zeros(len(self._units), np.bool_)
        frontier, level = self._offsets(np.zeros(1, np.int64)), 0
        while len(frontier):
            level += 1
            if int((frontier | 0xFF).max()) >= len(self._units):
                return "has a trie that leads out of itself"
            frontier = frontier[~seen[frontier]]
            seen[frontier] = True
            children = [self._children(frontier[start : start + CHUNK]) for start in range(0, len(frontier), CHUNK)]
            positions = np.concatenate([np.zeros(0, np.int64), *children])
            frontier = np.unique(self._offsets(positions))
            if fault := self._values_fault(positions, level):
                return fault
        return None

    def _offsets(self, positions: Units) -> Units:
        """Where the children of the units at these positions lie."""
        units = self._units[positions]
        return positions ^ ((units >> 10) << ((units & 0x200) >> 6))

    def _children(self, bases: Units) -> Units:
        labels = np.arange(1, 256)
        positions = bases[:, None] ^ labels
        units = self._units[positions]
        return positions[(units & 0x800000FF) == labels]

    def _values_fault(self, positions: Units, level: int) -> str | None:
        leaves = positions[(self._units[positions] >> 8) & 1 == 1]
        places = self._offsets(leaves)
        if len(places) and int(places.max()) >= len(self._units):
            return "has a trie that leads out of itself"
        values = self._units[places] & 0x7FFFFFFF
        if len(values) and (int(values.max()) >= len(self._lengths) or not self._starts[values].all()):
            return "has a trie that leads out of its replacements"
        if len(values) and int(self._lengths[values].max()) > MOST_EXPANSION * level:
            return f"makes more than {MOST_EXPANSION} bytes out of one"
        return None
