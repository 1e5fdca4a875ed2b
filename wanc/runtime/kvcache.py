"""What finished chunks of a causal video have left: keys and values of every block, in a ring that does not grow.

The first chunks stay for good (the sink); behind them the last ones, of which the oldest gives its place to the one
that is finished. Keys are stored with their positions in them, or get them where they are read (`places`), so that
their order does not matter and nothing is ever moved: which keys a chunk sees is what Self-Forcing's rolling cache lets
it see (https://github.com/guandeh17/Self-Forcing, `wan/modules/causal_model.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .dimensions import Dtype
from .pool import Empty

Array = np.ndarray[Any, Any]
BIAS = "past_bias"
SCALE = "_scale"
"""What the name of an input ends with that has the scales of another."""
FORMATS: Mapping[str, Dtype] = {"fp32": "float32", "fp16": "float16", "int8": "int8", "int4": "uint8"}
"""In what they are kept, and as which dtype."""
LARGEST_CODE = {"int8": 127, "int4": 7}


@dataclass(frozen=True)
class KeyValueWindow:
    """How many chunks are seen besides the one that is made: the first `sink` of a video, and the last `recent`."""

    sink: int
    recent: int

    def __post_init__(self) -> None:
        if self.sink < 0 or self.recent < 1:
            raise ValueError("a window has no fewer than no first chunks, and one recent chunk")

    @property
    def chunks(self) -> int:
        return self.sink + self.recent

    def slot(self, chunk: int) -> int:
        """Where a finished chunk is stored, counted from 0 as it is."""
        return chunk if chunk < self.sink else self.sink + (chunk - self.sink) % self.recent

    def seen(self, chunk: int) -> list[int]:
        """The finished chunks that this one sees, in their order."""
        first = min(self.sink, chunk)
        return [*range(first), *range(max(first, chunk - self.recent), chunk)]

    def places(self, seen: Sequence[int]) -> list[int]:
        """For each slot, how many of the chunks in sight come before the one that lies there; 0 where there is none."""
        found = [0] * self.chunks
        for place, chunk in enumerate(sorted(seen)):
            found[self.slot(chunk)] = place
        return found


class KeyValueRing:
    """The keys and values of one expert and one guidance branch, each [1, past, heads, channels] in a format.

    `shapes` are those of what one chunk leaves, float32 [1, tokens, heads, channels], by the name of the input that
    takes it.
    """

    def __init__(
        self,
        window: KeyValueWindow,
        shapes: Mapping[str, Sequence[int]],
        empty: Empty = np.empty,
        precision: str = "fp32",
    ) -> None:
        self._window, self._precision, self.finished = window, precision, 0
        self._tokens = next(iter(shapes.values()))[1]
        arrays = ring_arrays(window, shapes, precision)
        self._arrays = {name: empty(shape, np.dtype(dtype)) for name, (shape, dtype) in arrays.items()}
        for array in self._arrays.values():
            array[:] = 0  # what is hidden is multiplied by nothing, and has to be a number
        self._bias = self._arrays[BIAS]
        self._bias[:] = -np.inf

    @property
    def seen(self) -> list[int]:
        """The chunks that the next one sees."""
        return self._window.seen(self.finished)

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self._arrays.values())

    def inputs(self) -> dict[str, Array]:
        """What a pass over the next chunk takes of the past: the ring itself, of which nothing is copied."""
        return dict(self._arrays)

    def clear(self) -> None:
        """Nothing is in sight any more."""
        self._bias[:] = -np.inf
        self.finished = 0

    def finish(self, chunk: int, left: Mapping[str, Array]) -> None:
        """Store what a chunk, by its number, has left: in the place of what is not seen any more."""
        slot = self._window.slot(chunk) * self._tokens
        for name, array in left.items():
            for end, part in encoded(array, self._precision).items():
                self._arrays[name + end][:, slot : slot + self._tokens] = part
        self._bias[..., slot : slot + self._tokens] = 0
        self.finished = chunk + 1


def ring_arrays(
    window: KeyValueWindow, shapes: Mapping[str, Sequence[int]], precision: str
) -> dict[str, tuple[tuple[int, ...], Dtype]]:
    """The arrays that a ring is made of, by the names of inputs: shapes and dtypes; `shapes` are as a ring takes them.

    Beside keys and values there is the bias, which hides what is not there yet.
    """
    seen = window.chunks * next(iter(shapes.values()))[1]
    arrays: dict[str, tuple[tuple[int, ...], Dtype]] = {BIAS: ((1, 1, 1, seen), "float32")}
    for name, (one, tokens, heads, channels) in shapes.items():
        for end, dtype, size in stored(precision, channels):
            arrays[name + end] = (one, window.chunks * tokens, heads, size), dtype
    return arrays


def stored(precision: str, channels: int) -> list[tuple[str, Dtype, int]]:
    """What keys or values of so many channels are kept as: of each array the end of its name, its dtype, its channels.

    Codes have a scale for each token and head.
    """
    size = channels // 2 if precision == "int4" else channels
    codes = ("", FORMATS[precision], size)
    return [codes, (SCALE, "float32", 1)] if precision in LARGEST_CODE else [codes]


def encoded(array: Array, precision: str) -> dict[str, Array]:
    """Keys or values, float32 [1, tokens, heads, channels], as they are kept: by the ends of their names.

    Codes are symmetric; two of four bits are in a byte, those of the first half of the channels in its lower bits.
    """
    if precision not in LARGEST_CODE:
        return {"": array.astype(FORMATS[precision], copy=False)}
    largest = np.float32(LARGEST_CODE[precision])
    scale = np.maximum(np.abs(array).max(axis=-1, keepdims=True), np.finfo(np.float32).tiny) / largest
    codes = np.rint(array / scale)
    if precision == "int8":
        return {"": codes.astype(np.int8), SCALE: scale}
    lower, upper = np.split((codes + 8).astype(np.uint8), 2, axis=-1)
    return {"": lower | upper << 4, SCALE: scale}


def decoded(parts: Mapping[str, Array], precision: str) -> Array:
    """The keys or values, float32, of what `encoded` gives."""
    codes = parts[""]
    if precision not in LARGEST_CODE:
        return codes.astype(np.float32)
    if precision == "int4":
        codes = np.concatenate([codes & 15, codes >> 4], axis=-1).astype(np.float32) - 8
    return codes.astype(np.float32) * parts[SCALE]
