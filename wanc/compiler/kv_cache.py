"""The cache of a causal model as a recipe asks for it: how much it holds, and whether the checkpoint was trained so."""

from __future__ import annotations

from wanc.errors import RecipeError
from wanc.models.wan.causal_marks import CHUNK_KEYS, Marks
from wanc.models.wan.facts import WanFacts
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.schema import KeyValueCacheSection, Recipe
from wanc.recipe.shapes import ShapeSection
from wanc.runtime.cache_facts import RELATIVE, CacheFacts
from wanc.runtime.kvcache import KeyValueWindow
from wanc.runtime.video_limits import MOST_CHUNK_FRAMES, MOST_CHUNKS

KEY = "runtime.kv_cache"


def cache_facts(recipe: Recipe) -> CacheFacts | None:
    """What a causal model keeps of a video, as its bundle will; None of a model that makes a video at once."""
    if (cache := recipe.runtime.kv_cache) is None:
        return None
    window = KeyValueWindow(cache.sink, cache.window)
    return CacheFacts(cache.chunk, window, cache.precision, cache.positions == RELATIVE)


def seen_tokens(cache: KeyValueCacheSection, facts: WanFacts, shape: ShapeSection) -> int:
    """Of the finished chunks that a chunk may see."""
    rows, columns = (
        side // facts.model.spatial_stride // patch
        for side, patch in zip((shape.height, shape.width), facts.patch, strict=True)
    )
    return (cache.sink + cache.window) * cache.chunk * rows * columns


def check_cache(loaded: LoadedRecipe, causal: Marks) -> None:
    """Raises RecipeError, at the recipe's line, where the checkpoint's own keys say something else."""
    cache = loaded.recipe.runtime.kv_cache
    if cache is None:
        return
    said = {key: mark.value for key, mark in causal.items()}
    for key in CHUNK_KEYS:
        if said.get(key, cache.chunk) != cache.chunk:
            message = f"the checkpoint was trained with chunks of {said[key]} latent frames, by its {key}"
            raise _fault(loaded, "chunk", message, f"write `chunk: {said[key]}`")
    if (frames := said.get("sink_size", 0)) not in (0, cache.sink * cache.chunk):
        message = f"the checkpoint was trained with the first {frames} latent frames in sight, by its sink_size"
        raise _fault(loaded, "sink", message, f"write `sink: {frames // cache.chunk}`")
    seen = (cache.sink + cache.window + 1) * cache.chunk
    if (most := said.get("local_attn_size", seen)) < seen:
        message = f"{seen} latent frames would be in sight, and the checkpoint was trained with {most}"
        least = max(1, most // cache.chunk - 1 - cache.sink)
        raise _fault(loaded, "window", f"{message}, by its local_attn_size", f"write `window: {least}`")


def trained_cache(causal: Marks) -> KeyValueCacheSection:
    """The cache that a checkpoint was trained with, by its keys; where they say nothing it is Self-Forcing's."""
    said = {key: mark.value for key, mark in causal.items()}
    chunk = min(MOST_CHUNK_FRAMES, next((said[key] for key in CHUNK_KEYS if key in said), 3))
    sink = min(MOST_CHUNKS, said.get("sink_size", 0) // chunk)
    seen = said.get("local_attn_size", (sink + 7) * chunk)
    return KeyValueCacheSection(chunk=chunk, window=min(MOST_CHUNKS, max(1, seen // chunk - 1 - sink)), sink=sink)


def _fault(loaded: LoadedRecipe, key: str, message: str, hint: str) -> RecipeError:
    where = loaded.marks.where(f"{KEY}.{key}")
    return RecipeError(f"{KEY}.{key}: {message}", where=where, hint=hint)
