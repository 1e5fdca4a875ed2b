"""What belongs to models that make videos chunk by chunk, and to them alone; and what is not built for them yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from wanc.recipe.checks import fault
from wanc.recipe.gates import CHUNK_GATES

if TYPE_CHECKING:
    from wanc.recipe.schema import Recipe

CACHE = ("runtime", "kv_cache")


def check_cache_is_of_a_causal_model(recipe: Recipe) -> None:
    """Raises a fault where keys and values are to be kept of a model that has none to keep."""
    if recipe.runtime.kv_cache is None or recipe.model.family == "wan-causal":
        return
    message = (
        "a model of the family wan makes all frames at once: each of its steps changes every one of them, so that no "
        "keys and values of an earlier step can be kept"
    )
    hint = "remove it; of a checkpoint that was trained to look back alone, such as Self-Forcing's, write `family: "
    raise fault(message, f"{hint}wan-causal` under model", CACHE)


def check_causal_model_has_a_cache(recipe: Recipe) -> None:
    """Raises a fault where nobody says how far back a causal model looks."""
    if recipe.model.family != "wan-causal" or recipe.runtime.kv_cache is not None:
        return
    message = "kv_cache is missing: a causal model makes a chunk of frames at a time, and looks back at finished ones"
    hint = "add to runtime a line such as `kv_cache: {chunk: 3, window: 6}`, with the chunk that it was trained with"
    raise fault(message, hint, ("runtime",), without=("kv_cache",))


def check_relative_positions_are_not_trained(recipe: Recipe) -> None:
    """Raises a fault where a quantised model is to learn that turns the same keys otherwise for each chunk."""
    if recipe.quantize.method == "qat" and recipe.cache_positions == "relative":
        hint = "leave it at ptq, or write `positions: absolute` under kv_cache"
        raise fault("models with relative positions are not trained yet", hint, ("quantize", "method"))


def check_effects_are_not_asked_of_a_causal_model(recipe: Recipe) -> None:
    """Raises a fault where Linears are to be kept by their effects, of which some come by way of keys and values."""
    if recipe.model.family == "wan-causal" and recipe.quantize.keep.sensitivity is not None:
        hint = "name what is to stay in float by keep.patterns, or remove it"
        at = ("quantize", "keep", "sensitivity")
        raise fault("what quantising a Linear does to later chunks is not measured yet", hint, at)


def check_chunks_are_judged_of_a_causal_model(recipe: Recipe) -> None:
    """Raises a fault where a report is to judge chunks of a model that makes all frames at once."""
    if recipe.evaluate is None or recipe.model.family == "wan-causal":
        return
    for gate in recipe.evaluate.gates:
        if gate in CHUNK_GATES:
            hint = f"take {CHUNK_GATES[gate]}"
            raise fault("a model of the family wan makes all frames at once", hint, ("evaluate", "gates", gate))


def check_relative_positions_are_not_reported_on(recipe: Recipe) -> None:
    """Raises a fault where a report's reference, which knows the positions in the video alone, would be of another
    model.
    """
    if recipe.evaluate is not None and recipe.cache_positions == "relative":
        hint = "remove evaluate, or write `positions: absolute`"
        raise fault("reports have no reference for relative positions yet", hint, (*CACHE, "positions"))


def check_noise_is_added_chunk_by_chunk(recipe: Recipe) -> None:
    """Raises a fault where a model that makes a video at once is to be sampled with new noise at each step."""
    if recipe.sampling is not None and recipe.sampling.solver == "lcm" and recipe.model.family != "wan-causal":
        hint = "take euler, unipc or dpm++"
        raise fault("lcm samples causal models alone so far", hint, ("sampling", "solver"))


CAUSAL_RULES: tuple[Callable[[Recipe], None], ...] = (
    check_cache_is_of_a_causal_model,
    check_causal_model_has_a_cache,
    check_relative_positions_are_not_trained,
    check_effects_are_not_asked_of_a_causal_model,
    check_chunks_are_judged_of_a_causal_model,
    check_relative_positions_are_not_reported_on,
    check_noise_is_added_chunk_by_chunk,
)
