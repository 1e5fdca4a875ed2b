"""The tiles in which pictures are decoded: those that a recipe names, and the rule for how far they overlap."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wanc.recipe.schema import Recipe, TileSection
from wanc.recipe.shapes import ShapeSection
from wanc.runtime.model import Model
from wanc.runtime.tiling import Tiling
from wanc.runtime.video_limits import LARGEST_OVERLAP

OVERLAP = 64
"""In pixels: that of diffusers' own tiles. Smaller tiles than its 256 pixels overlap by a quarter, as those do."""


def recipe_tilings(recipe: Recipe, model: Model) -> dict[str, Tiling]:
    """By the name of a shape, where the recipe names tiles and the picture is larger than one."""
    tile = recipe.runtime.decode.tile
    if not isinstance(tile, TileSection):
        return {}
    found = {shape.name: _tiling(tile, shape, model.spatial_stride) for shape in recipe.shapes or ()}
    return {name: tiling for name, tiling in found.items() if tiling is not None}


def tilings_document(tilings: Mapping[str, Tiling]) -> dict[str, Any]:
    """As a manifest has them."""
    return {name: {"tile": list(entry.tile), "stride": list(entry.stride)} for name, entry in tilings.items()}


def stride_of(tile: int, point: int) -> int:
    """The step from one tile to the next, in pixels; `point` are those of one latent."""
    overlap = min(OVERLAP, tile // LARGEST_OVERLAP) // point * point
    return tile - max(overlap, point)


def fitted(tile: tuple[int, int], stride: tuple[int, int], height: int, width: int) -> Tiling | None:
    """Tiles for a picture: a side that one of them covers is not cut. None where that are both."""
    sides, axes = (height, width), range(2)
    if all(tile[axis] >= sides[axis] for axis in axes):
        return None
    high, wide = (
        (tile[axis], stride[axis]) if tile[axis] < sides[axis] else (sides[axis], sides[axis]) for axis in axes
    )
    return Tiling((high[0], wide[0]), (high[1], wide[1]))


def _tiling(tile: TileSection, shape: ShapeSection, point: int) -> Tiling | None:
    high = stride_of(tile.height, point) if tile.stride_height is None else tile.stride_height
    wide = stride_of(tile.width, point) if tile.stride_width is None else tile.stride_width
    return fitted((tile.height, tile.width), (high, wide), shape.height, shape.width)
