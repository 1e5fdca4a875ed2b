"""Where a component is cut if somebody says into how many segments, and not for which devices."""

from __future__ import annotations

from itertools import pairwise

from wanc.words import Cut


def cut_blocks(blocks: int, cut: Cut) -> list[tuple[int, int]]:
    """The first block of each segment and the one behind its last: one segment for all, for each, or so many alike.

    Their sizes differ by one block at most. A component has no more segments than blocks, and one without any has one.
    """
    count = {"none": 1, "blocks": blocks}[cut] if isinstance(cut, str) else cut
    segments = max(1, min(count, blocks))
    return list(pairwise(blocks * index // segments for index in range(segments + 1)))
