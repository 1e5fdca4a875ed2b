"""The shapes that the inputs of a video model have in the requests of a recipe: one kind for each of its shapes.

Engines that are compiled for sizes take these and no others. A text has one token up to as many as the model reads.
"""

from __future__ import annotations

from wanc.compiler.engines.lowered_graph import Extent, InputShapes
from wanc.compiler.resolve import Resolved


def input_shapes(resolved: Resolved) -> tuple[InputShapes, ...]:
    """By the name of an input: `latents` of a denoiser, `latent` of the decoder, `mask` of the text encoder.

    None for a model that makes no video: of its sizes nothing is known but an example.
    """
    facts = resolved.model.facts
    if facts is None:
        return ()
    tokens = Extent(1, facts.model.text_length, facts.model.text_length)
    found: list[InputShapes] = []
    for shape in resolved.recipe.shapes or ():
        sizes = facts.model.latent_shape(height=shape.height, width=shape.width, frames=shape.frames)
        batch, channels, frames, height, width = (Extent(size, size, size) for size in sizes)
        found.append(
            {
                "latents": (batch, channels, frames, height, width),
                "latent": (batch, channels, batch, height, width),
                "mask": (batch, tokens),
            }
        )
    return tuple(found)
