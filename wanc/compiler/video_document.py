"""What a bundle says of making videos, and whether the recipe's videos can be made by the model.

A bundle's runtime refuses what cannot be true when it opens it. The same document is read in the same way here, before
any work, so that no bundle is sealed which nobody can open; and the fault is told at the recipe's line.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from wanc.compiler.tiles import recipe_tilings, tilings_document
from wanc.errors import RecipeError
from wanc.models.wan.facts import WanFacts
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.problems import RecipeProblem, as_error
from wanc.recipe.schema import Recipe
from wanc.recipe.shapes import ShapeSection
from wanc.runtime.cache_facts import KEY as CACHE
from wanc.runtime.model import Model
from wanc.runtime.strict_json import FieldError, Fields
from wanc.runtime.tiling import Tiling
from wanc.runtime.video_facts import DECODE, VideoFacts

# What any recipe's sizes are multiples of.
PIXELS, FRAMES = 16, 4
TILE = "runtime.decode.tile"


def video_document(recipe: Recipe, model: Model, chosen: Mapping[str, Tiling] | None = None) -> dict[str, Any]:
    """The model, the sampling and the shapes as a manifest has them; `model` with the boundary that is in force.

    `chosen` are the tiles of shapes, by name, that the planner has chosen where the recipe leaves it to that.
    """
    assert recipe.sampling is not None and recipe.shapes is not None, "the recipe's schema lets no others pass"
    facts, tilings = dataclasses.asdict(model), chosen or recipe_tilings(recipe, model)
    return {
        "model": {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()},
        "sampling": recipe.sampling.model_dump(mode="json", exclude={"boundary", "allow"}),
        "shapes": [shape.model_dump(mode="json") for shape in recipe.shapes],
        **({DECODE: tilings_document(tilings)} if tilings else {}),
        **({CACHE: cache.model_dump(mode="json")} if (cache := recipe.runtime.kv_cache) else {}),
    }


def check_video(loaded: LoadedRecipe, facts: WanFacts) -> None:
    """Raises RecipeError, at the recipe's line, for a shape or a setting with which this model makes no video."""
    recipe, marks = loaded.recipe, loaded.marks
    problems = [
        RecipeProblem(f"{at}.{key}: {message}", marks.where(f"{at}.{key}"), hint)
        for at, shape in _shapes(recipe)
        for key, message, hint in _faults(shape, facts)
    ]
    if problems:
        raise as_error(problems)
    try:
        VideoFacts.read(Fields(video_document(recipe, facts.model), ""))
    except FieldError as error:
        # What the model says is no line of the recipe.
        key = re.sub(r"\[(\d+)\]", r".\1", error.field)
        where = marks.where("model.source" if key.startswith("model.") else key)
        if key.startswith(f"{DECODE}."):
            key, where = f"{TILE}: the {key.rpartition('.')[2]}", marks.where(TILE)
        raise RecipeError(f"{key} {error.reason}", where=where, hint=error.hint) from None


def _shapes(recipe: Recipe) -> Iterator[tuple[str, ShapeSection]]:
    """Every size that the model has to make, with its key: those of the bundle, and those to calibrate at."""
    for key, shapes in (("shapes", recipe.shapes), ("quantize.calibrate.shapes", recipe.quantize.calibrate.shapes)):
        for index, shape in enumerate(shapes or ()):
            yield f"{key}.{index}", shape


def _faults(shape: ShapeSection, facts: WanFacts) -> Iterator[tuple[str, str, str]]:
    """(key, what is wrong, what to write) of each of a shape's sizes that the model cannot make."""
    model = facts.model
    for key, patch in zip(("height", "width"), facts.patch, strict=True):
        pixels, token = getattr(shape, key), model.spatial_stride * patch
        if pixels % token:
            message = (
                f"{pixels} is not a multiple of {token}: this model's VAE makes one point of {model.spatial_stride} x "
                f"{model.spatial_stride} pixels, and its denoiser one token of {patch} points"
            )
            yield key, message, _nearest(pixels, math.lcm(PIXELS, token), 0)
        elif pixels // token > model.positions:
            message = f"{pixels} pixels are {pixels // token} tokens, and the model has positions for {model.positions}"
            yield key, message, f"at most {model.positions * token}"
    stride = model.temporal_stride
    if (shape.frames - 1) % stride:
        message = (
            f"{shape.frames} is not {stride}n + 1: the first latent frame of this model's VAE makes one frame, and "
            f"each later one {stride}"
        )
        yield "frames", message, _nearest(shape.frames, math.lcm(FRAMES, stride), 1)
    elif shape.frames > model.most_frames:
        count = (shape.frames - 1) // stride + 1
        message = f"{shape.frames} frames are {count} latent frames, and the model has positions for {model.positions}"
        yield "frames", message, f"at most {model.most_frames}"


def _nearest(size: int, step: int, rest: int) -> str:
    """In words, the sizes of `step` * n + `rest` on both sides of this one."""
    below = (size - rest) // step * step + rest
    return f"the nearest are {below} and {below + step}" if below > 0 else f"the nearest is {below + step}"
