"""The shapes that the inputs of a video model have in the requests of a recipe: one kind for each of its shapes.

Engines that are compiled for sizes take these and no others. A text has one token up to as many as the model reads.
"""

from __future__ import annotations

from collections.abc import Iterable

from wanc.compiler.engines.lowered_graph import InputShapes, SizeRange
from wanc.compiler.resolve import Resolved
from wanc.recipe.shapes import ShapeSection
from wanc.runtime.model import Model


def input_shapes(resolved: Resolved) -> tuple[InputShapes, ...]:
    """Those of a recipe; none for a model that makes no video: of its sizes nothing is known but an example."""
    facts = resolved.model.facts
    return () if facts is None else video_shapes(facts.model, resolved.recipe.shapes or ())


def video_shapes(model: Model, shapes: Iterable[ShapeSection]) -> tuple[InputShapes, ...]:
    """By the name of an input: `latents` of a denoiser, `latent` of the decoder, `mask` of the text encoder."""
    tokens = SizeRange(1, model.text_length, model.text_length)
    found: list[InputShapes] = []
    for shape in shapes:
        sizes = model.latent_shape(height=shape.height, width=shape.width, frames=shape.frames)
        batch, channels, frames, height, width = (SizeRange(size, size, size) for size in sizes)
        found.append(
            {
                "latents": (batch, channels, frames, height, width),
                "latent": (batch, channels, batch, height, width),
                "mask": (batch, tokens),
            }
        )
    return tuple(found)
