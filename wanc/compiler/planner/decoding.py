"""How pictures are decoded: whole where the budget allows it, else in the tiles with the least work that fit.

Tiles overlap, so that they are more work than the picture: the smaller the more. What each way takes in memory is
counted from the decoder's graph at the size of a picture or a tile, and what the engine adds to that was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from wanc.compiler.planner.costs import ComponentCosts
from wanc.compiler.planner.count import flops
from wanc.compiler.planner.devices import Device
from wanc.compiler.planner.roofline import part_seconds
from wanc.compiler.tiles import OVERLAP, fitted, stride_of
from wanc.errors import RecipeError
from wanc.runtime.tiling import Layout, Tiling
from wanc.runtime.video_limits import FEWEST_TILE_POINTS, LARGEST_OVERLAP
from wanc.words import EngineKind

MIB = 2**20
BUDGET = "runtime.budgets.device"
USUAL = 256
"""What a tile is high and wide in diffusers, in pixels: what is told of tiles where nothing asks for others."""
INTERPRETER = 64 * MIB
"""What a process has before it opens an engine."""

CostsAt = Callable[[int, int], ComponentCosts]
"""What one latent frame costs, by the height and the width of a picture in pixels."""


@dataclass(frozen=True)
class HeldByDecoder:
    """What an engine holds of a decoder: of its weights, and of what is alive at once, beside the caches.

    Weights are there for both graphs, and once more as the kernels want them.
    """

    weights: float
    whole: float
    tiled: float


HELD: Mapping[EngineKind, HeldByDecoder] = {
    # The pool of ONNX Runtime, which is left out where pictures are in tiles, has several times what is alive.
    "onnxruntime": HeldByDecoder(2.41, 11.8, 3.65),
    "openvino": HeldByDecoder(4.2, 8.8, 8.8),
}
"""Fitted to peaks of processes that decoded three latent frames with the VAE of Wan 2.1 in float32, of pictures of 128,
192 and 256 pixels square. In MiB: onnxruntime 2488 and 4285 (whole), 1433, 2323 and 3516 (tiles), openvino 2498 and, of
256, 6245."""


@dataclass(frozen=True)
class Way:
    """One way to decode a video: peak bytes of memory, `values` of them beside the engine's weights and the process
    itself, bytes of disk, seconds, and FLOPs by those of whole pictures.
    """

    tiling: Tiling | None
    bytes: int
    values: int
    disk_bytes: int
    seconds: float
    work: float


@dataclass(frozen=True)
class Decoding:
    """Both ways to decode a size of video, and which is taken."""

    whole: Way
    tiled: Way | None
    is_tiled: bool

    @property
    def tiling(self) -> Tiling | None:
        """The tiles that are taken."""
        return self.way.tiling

    @property
    def way(self) -> Way:
        """What is taken."""
        return self.tiled if self.is_tiled and self.tiled else self.whole


@dataclass(frozen=True)
class Decoder:
    """A decoder at a size of video, in pixels and frames, on an engine and a device."""

    costs_at: CostsAt
    held: HeldByDecoder
    device: Device
    height: int
    width: int
    frames: int
    point: int

    def whole(self) -> Way:
        """Of whole pictures."""
        costs = self.costs_at(self.height, self.width)
        values = self._values(costs, self.held.whole)
        return Way(None, self._held(costs) + values, values, 0, self._seconds(costs), 1.0)

    def tiled(self, tiling: Tiling) -> Way:
        """Of these tiles, one behind the other."""
        heights, widths = (
            [span.size for span in tiling.spans(side, axis)] for axis, side in enumerate((self.height, self.width))
        )
        costs = {size: self.costs_at(*size) for size in set(product(heights, widths))}
        of_all = [costs[size] for size in product(heights, widths)]
        whole = flops(self.costs_at(self.height, self.width).parts)
        return Way(
            tiling,
            self._tile_bytes(tiling),
            self._values(self._largest(tiling), self.held.tiled),
            Layout(tiling, self.height, self.width, self.frames).bytes,
            sum(map(self._seconds, of_all)),
            sum(flops(one.parts) for one in of_all) / whole,
        )

    def ways(self, budget: int) -> list[Way]:
        """Those in tiles that fit, of the widest overlap that any has: 64 pixels, or less where tiles have to be small.

        A narrow overlap is less work, and shows more of where tiles meet.
        """
        for overlap in range(OVERLAP, 0, -self.point):
            ways = [self.tiled(one) for one in self._tilings(overlap) if self._tile_bytes(one) <= budget]
            if ways:
                return ways
        return []

    def least(self) -> Way:
        """The smallest tiles that there can be."""
        tile = FEWEST_TILE_POINTS * self.point
        stride = stride_of(tile, self.point)
        found = fitted((tile, tile), (stride, stride), self.height, self.width)
        return self.tiled(found) if found else self.whole()

    def _tilings(self, overlap: int) -> Iterator[Tiling]:
        for (high, down), (wide, across) in product(
            *(self._sides(side, overlap) for side in (self.height, self.width))
        ):
            if (tiling := fitted((high, wide), (down, across), self.height, self.width)) is not None:
                yield tiling

    def _sides(self, side: int, overlap: int) -> list[tuple[int, int]]:
        """A tile's side and the step to the next: one for each number of them, the smallest that makes so few."""
        found = {1: (side, side)}
        for tile in range(side - self.point, LARGEST_OVERLAP * overlap - 1, -self.point):
            if stride_of(tile, self.point) == tile - overlap:
                found[len(range(0, side, tile - overlap))] = (tile, tile - overlap)
        return list(found.values())

    def _tile_bytes(self, tiling: Tiling) -> int:
        """The peak is that of the largest tile: nothing is kept from one to the next."""
        costs = self._largest(tiling)
        return self._held(costs) + self._values(costs, self.held.tiled)

    def _largest(self, tiling: Tiling) -> ComponentCosts:
        high, wide = tiling.tile
        return self.costs_at(min(high, self.height), min(wide, self.width))

    def _held(self, costs: ComponentCosts) -> int:
        """Whatever the size of pictures."""
        return INTERPRETER + round(self.held.weights * costs.weights)

    def _values(self, costs: ComponentCosts, factor: float) -> int:
        alive = max(part.activation for part in costs.parts)
        return round(factor * alive) + sum(part.kept for part in costs.parts)

    def _seconds(self, costs: ComponentCosts) -> float:
        latent_frames = costs.executions
        return latent_frames * sum(part_seconds(part, self.device) for part in costs.parts)


def choose(decoder: Decoder, tiling: Tiling | None, *, may_tile: bool, budget: int | None, what: str) -> Decoding:
    """Whole pictures where they fit into `budget` bytes, else the tiles with the least work that do.

    `tiling` are the recipe's tiles, if it names some: then it is those. Without `may_tile` it is whole pictures. Where
    there is no budget, all fits. Raises RecipeError, about `what`, where nothing fits: with the bytes that are missing,
    and the least budget that would do.
    """
    whole = decoder.whole()
    if tiling is not None:
        way = decoder.tiled(tiling)
        _require(budget, way, what)
        return Decoding(whole, way, is_tiled=True)
    usual = fitted((USUAL, USUAL), (USUAL - OVERLAP, USUAL - OVERLAP), decoder.height, decoder.width)
    shown = decoder.tiled(usual) if usual else None
    if budget is None or whole.bytes <= budget or not may_tile:
        _require(budget, whole, what)
        return Decoding(whole, shown, is_tiled=False)
    ways = decoder.ways(budget)
    if not ways:
        _require(budget, min(whole, decoder.least(), key=lambda way: way.bytes), what)
    return Decoding(whole, min(ways, key=lambda way: (way.work, way.bytes)), is_tiled=True)


def _require(budget: int | None, least: Way, what: str) -> None:
    if budget is None or least.bytes <= budget:
        return
    how = "whole" if least.tiling is None else f"in tiles of {least.tiling.tile[1]} x {least.tiling.tile[0]} pixels"
    raise RecipeError(
        f"decoding {what} {how} takes {least.bytes:,} bytes, {least.bytes - budget:,} more than there are",
        hint=f"set {BUDGET} to at least {-(-least.bytes // MIB)}MiB",
    )
