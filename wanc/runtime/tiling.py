"""A picture in tiles that overlap, decoded one by one and blended: the arithmetic of diffusers' `AutoencoderKLWan`.

A tile begins every `stride` pixels, and the last of a row or a column is cut off where the picture ends. Of each tile
the first `stride` pixels are shown; what lies behind them only fades into the next tile, over the pixels that both
have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

CHANNELS = 3
PRECISE_BYTES, PIXEL_BYTES = 4, 1
"""Of a value that is still to be blended, and of one that is shown."""


@dataclass(frozen=True)
class TileSpan:
    """A tile along one axis, in pixels: `start` … `stop` - 1, of which the first `shown` are seen.

    Its first `before` pixels are blended with the last of the tile before it, its last `behind` wait for the next one.
    """

    start: int
    stop: int
    shown: int
    before: int
    behind: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Tile:
    """A tile of a picture: its rows and its columns, and which one of its row it is."""

    rows: TileSpan
    columns: TileSpan
    column: int

    @property
    def shown(self) -> tuple[int, int]:
        """Height and width of what is seen of it."""
        return self.rows.shown, self.columns.shown


@dataclass(frozen=True)
class Tiling:
    """How tiles are cut: height and width of one, and of the step to the next, in pixels."""

    tile: tuple[int, int]
    stride: tuple[int, int]

    def spans(self, size: int, axis: int) -> tuple[TileSpan, ...]:
        """The tiles along an axis, 0 down and 1 across, of a picture of this size."""
        tile, stride = self.tile[axis], self.stride[axis]
        starts = range(0, size, stride)
        sizes = [min(tile, size - start) for start in starts]
        blended = [0, *(min(one, other, tile - stride) for one, other in pairwise(sizes)), 0]
        return tuple(
            TileSpan(start, start + length, min(stride, length), before, behind)
            for start, length, (before, behind) in zip(starts, sizes, pairwise(blended), strict=True)
        )

    def tiles(self, height: int, width: int) -> Iterator[Tile]:
        """Row by row: each follows those that it is blended with."""
        columns = self.spans(width, 1)
        for rows in self.spans(height, 0):
            yield from (Tile(rows, span, column) for column, span in enumerate(columns))

    def count(self, height: int, width: int) -> int:
        """How many there are."""
        return len(self.spans(height, 0)) * len(self.spans(width, 1))


def blend(before: NDArray[np.float32], tile: NDArray[np.float32], axis: int) -> None:
    """Fade the last of one tile, `before`, into the first of the next: along axis 3 down, 4 across. Both are changed.

    float32 [1, 3, frames, height, width] both, of one size but along the axis, where `tile` has at least as many.
    """
    extent = before.shape[axis]
    place = [slice(None)] * axis + [slice(extent)]
    steps = np.arange(extent).reshape(-1, *[1] * (tile.ndim - axis - 1)) / max(extent, 1)
    first = tile[tuple(place)]
    before *= (1 - steps).astype(np.float32)
    first *= steps.astype(np.float32)
    first += before


@dataclass(frozen=True)
class Layout:
    """Where in a scratch file of `bytes` lies what is kept of `frames` pictures of a size, each tile by itself.

    That is what is seen of it, and its edges that are still to be blended: the lowest rows of each column until the
    tile below has them, and the last columns of one tile until the next has them. An edge takes the place of the one
    before it, which is read when it is written.
    """

    tiling: Tiling
    height: int
    width: int
    frames: int

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        return tuple(self.tiling.tiles(self.height, self.width))

    @cached_property
    def bytes(self) -> int:
        return self._beside + self.frames * self._side

    def picture(self, tile: Tile, frame: int) -> int:
        """Of what is seen of a tile in a frame: uint8 [height, width, 3]."""
        before = self.width * tile.rows.start + tile.rows.shown * tile.columns.start
        return CHANNELS * PIXEL_BYTES * (self.frames * before + frame * prod(tile.shown))

    def below(self, tile: Tile, frame: int) -> int:
        """Of a tile's lowest rows in a frame, and of those of the tile above: float32 [3, rows, width]."""
        return self._below + self._rows * (self.frames * self._widths[tile.column] + frame * tile.columns.size)

    def beside(self, frame: int) -> int:
        """Of a tile's last columns in a frame, and of those of the tile before it: float32 [3, height, columns]."""
        return self._beside + frame * self._side

    @cached_property
    def _widths(self) -> list[int]:
        """Of all tiles of a row that come before each one, and at the end of all of them."""
        return list(accumulate((span.size for span in self.tiling.spans(self.width, 1)), initial=0))

    @cached_property
    def _rows(self) -> int:
        """Bytes of the rows that tiles leave to those below, one pixel wide."""
        return CHANNELS * PRECISE_BYTES * max(span.behind for span in self.tiling.spans(self.height, 0))

    @cached_property
    def _side(self) -> int:
        """Bytes of the columns that tiles leave to those beside them, in one frame."""
        height = max(span.size for span in self.tiling.spans(self.height, 0))
        return CHANNELS * PRECISE_BYTES * height * max(span.behind for span in self.tiling.spans(self.width, 1))

    @cached_property
    def _below(self) -> int:
        return CHANNELS * PIXEL_BYTES * self.frames * self.height * self.width

    @cached_property
    def _beside(self) -> int:
        return self._below + self._rows * self.frames * self._widths[-1]
