"""Sizes of video in a recipe: those that the bundle makes, and those that it is calibrated at."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from wanc.recipe.checks import fault, four_n_plus_one, multiple_of_16
from wanc.recipe.section import PROFILE_NAME, Section
from wanc.runtime.video_limits import LARGEST_SIDE, MOST_FRAMES, MOST_SHAPES

ProfileName = Annotated[str, Field(pattern=PROFILE_NAME, max_length=32)]
Side = Annotated[
    int,
    Field(ge=16, le=LARGEST_SIDE, json_schema_extra={"multipleOf": 16}),
    AfterValidator(multiple_of_16),
]
Frames = Annotated[int, Field(ge=1, le=MOST_FRAMES), AfterValidator(four_n_plus_one)]


class ShapeSection(Section):
    """One size of video."""

    name: ProfileName
    """What this size is called; part of file names."""
    height: Side
    """In pixels, a multiple of 16; the model knows no positions beyond 16384."""
    width: Side
    """In pixels, a multiple of 16; the model knows no positions beyond 16384."""
    frames: Frames
    """Frames of video, 4n + 1: 17, 33, 49, 81; the model knows no positions beyond 4093."""


def _distinct_names(shapes: tuple[ShapeSection, ...]) -> tuple[ShapeSection, ...]:
    # Files called 480p and 480P would be one file on some systems.
    first: dict[str, int] = {}
    for index, shape in enumerate(shapes):
        if (earlier := first.setdefault(shape.name.casefold(), index)) != index:
            message = f"the name {shape.name} is taken by shapes.{earlier}"
            raise fault(message, "give each shape a name of its own, different in more than case", (index, "name"))
    return shapes


Shapes = Annotated[
    tuple[ShapeSection, ...], Field(min_length=1, max_length=MOST_SHAPES), AfterValidator(_distinct_names)
]
