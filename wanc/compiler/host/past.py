"""What finished chunks leave to later ones while samples of a causal expert pass through a piece, in the order in which
a video makes them.

What a clean pass leaves is seen by the passes behind it. So a piece needs the keys and values of its own blocks alone,
of the video that is on its way: they are computed there, kept in the runtime's own ring, and are nothing to store.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wanc.runtime.cache_facts import NEW, PAST, CacheFacts, left_by_a_chunk
from wanc.runtime.interface import Interface
from wanc.runtime.kvcache import BIAS, KeyValueRing

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ChunkPass:
    """Which pass a sample is: over a chunk, by its number, of a `video`: one branch of a clip. A clean one leaves keys
    and values. `size` are the rows and columns of its latents.
    """

    video: tuple[int, int]
    chunk: int
    is_clean: bool
    size: tuple[int, int]


@dataclass(frozen=True)
class Pasts:
    """Those of an expert whose graph is `step`; `passes` are the samples, all of one video in a row."""

    facts: CacheFacts
    step: Interface
    passes: Sequence[ChunkPass]

    def ring(self, video: ChunkPass, names: Collection[str]) -> KeyValueRing:
        """An empty one, of the keys and values among these names."""
        left = left_by_a_chunk(self.step, self.facts.chunk, video.size)
        # A piece may take the bias alone, which is of the same length for all.
        here = {name: shape for name, shape in left.items() if name in names} or dict([*left.items()][:1])
        return KeyValueRing(self.facts.window, here, precision=self.facts.precision)

    def left(self, names: Collection[str]) -> dict[str, str]:
        """What a chunk leaves, by those of these names that take it."""
        new = [output.name for output in self.step.outputs if output.name.startswith(NEW)]
        return {taken: name for name in new if (taken := PAST + name.removeprefix(NEW)) in names}


class PiecePast:
    """The past of a piece with these inputs; nothing without `pasts`, of a model that has none."""

    def __init__(self, pasts: Pasts | None, inputs: Collection[str]) -> None:
        past = [name for name in inputs if name == BIAS or name.startswith(PAST)]
        self._pasts, self.names = pasts, frozenset(past if pasts is not None else ())
        self._video: tuple[int, int] | None = None
        self._ring: KeyValueRing | None = None

    def inputs(self, number: int) -> dict[str, Array]:
        """What a sample sees of the chunks before its own."""
        if self._pasts is None or not self.names:
            return {}
        one = self._pasts.passes[number]
        if self._ring is None or self._video != one.video:  # only one is on its way
            self._video, self._ring = one.video, self._pasts.ring(one, self.names)
        return {name: array for name, array in self._ring.inputs().items() if name in self.names}

    def finish(self, number: int, known: Mapping[str, Array]) -> None:
        """Take what a sample leaves, of the values that are `known` behind the piece."""
        if self._pasts is None or self._ring is None or not (one := self._pasts.passes[number]).is_clean:
            return
        left = self._pasts.left(self.names)
        self._ring.finish(one.chunk, {taken: known[name] for taken, name in left.items()})
