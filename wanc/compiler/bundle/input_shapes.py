"""The shapes that the inputs of a video model have in the requests of a recipe: one kind for each of its shapes.

Engines that are compiled for sizes take these and no others. A text has one token up to as many as the model reads.
"""

from __future__ import annotations

from collections.abc import Iterable

from wanc.compiler.engines.lowered_graph import InputShapes, SizeRange
from wanc.compiler.kv_cache import seen_tokens
from wanc.compiler.resolve import Resolved
from wanc.recipe.shapes import ShapeSection
from wanc.runtime.kvcache import BIAS
from wanc.runtime.model import Model


def input_shapes(resolved: Resolved) -> tuple[InputShapes, ...]:
    """Those of a recipe; none for a model that makes no video: of its sizes nothing is known but an example."""
    facts, cache, shapes = resolved.model.facts, resolved.recipe.runtime.kv_cache, resolved.recipe.shapes or ()
    if facts is None:
        return ()
    videos = video_shapes(facts.model, shapes)
    if cache is None:
        return videos
    seen = [seen_tokens(cache, facts, shape) for shape in shapes]
    return tuple(_of_a_chunk(video, cache.chunk, tokens) for video, tokens in zip(videos, seen, strict=True))


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


def _of_a_chunk(video: InputShapes, frames: int, seen: int) -> InputShapes:
    """The same of a causal model, whose denoisers are given chunks: the last one may have fewer latent frames. The
    past always has room for all tokens that are seen, from the first chunk on: one engine serves all of them.
    """
    batch, channels, _, height, width = video["latents"]
    chunk, past = SizeRange(1, frames, frames), (batch, batch, batch, SizeRange(seen, seen, seen))
    return {**video, "latents": (batch, channels, chunk, height, width), BIAS: past}
