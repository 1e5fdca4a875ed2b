"""MLPerf Inference's text-to-video benchmark: what its closed division fixes, and what it forbids.

A result of the closed division is of the very model and the very videos that the benchmark describes; how it is
computed is free as long as nothing is computed that the reference does not compute. Settings are those of the
benchmark's reference implementation, prohibitions those of the rules for inference (mlcommons/inference_policies).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wanc.recipe.checks import fault

if TYPE_CHECKING:
    from wanc.recipe.schema import Recipe

STEPS = 20
SHAPE = (720, 1280, 81)
GUIDANCE = {"high": 4.0, "low": 3.0}
BOUNDARY = 0.875
OPEN_HINT = "or build for the open division: `division: open`"


@dataclass(frozen=True)
class Rule:
    """A rule by its name, in short."""

    name: str
    says: str


EQUIVALENCE = Rule("model equivalence", "all submissions compute what the reference model computes")
WEIGHTS = Rule("no retraining", "weights are those given, changed by nothing but quantisation after training")
CACHING = Rule("no caching", "no query, response or intermediate result is kept to answer for another computation")
NUMERICS = Rule("reference numerics", "the decoder of the VAE is computed in fp32, the rest in bf16 or in fewer bits")

CACHES = (
    ("sampling", "cache"), ("sampling", "step_cache"), ("runtime", "cache"), ("runtime", "step_cache"),
    ("runtime", "kv_cache"),
)  # fmt: skip
"""Keys that would ask for a result of one step in place of another's, or of one request in place of another's."""


def check_no_cache(written: Mapping[str, Any]) -> None:
    """Refuses what is written of caches, before it is asked whether wanc has such a thing."""
    for section, key in CACHES:
        inside = written.get(section)
        if isinstance(inside, Mapping) and key in inside:
            raise _refusal(CACHING, f"{section}.{key} reuses results", "remove it", (section, key))


def check_closed(recipe: Recipe) -> None:
    """Raises the fault of what the closed division does not take."""
    sampling, shapes = recipe.sampling, recipe.shapes or ()
    if recipe.quantize.method == "qat":
        raise _refusal(WEIGHTS, "method qat trains", "set it to ptq", ("quantize", "method"))
    if sampling is None:
        raise _refusal(EQUIVALENCE, "the benchmark is one of videos", "give a model with `source`", ("model",))
    if sampling.timesteps is not None:
        message = f"timesteps are those of a few-step model, and the benchmark has {STEPS} steps"
        raise _refusal(EQUIVALENCE, message, f"write `steps: {STEPS}` in their place", ("sampling", "timesteps"))
    if sampling.steps != STEPS:
        message = f"{sampling.steps} steps are not the {STEPS} of the benchmark"
        raise _refusal(EQUIVALENCE, message, f"write `steps: {STEPS}`", ("sampling", "steps"))
    if sampling.solver != "unipc":
        message = f"the reference integrates with unipc, not with {sampling.solver}"
        raise _refusal(EQUIVALENCE, message, "write `solver: unipc`", ("sampling", "solver"))
    if sampling.guidance.model_dump() != GUIDANCE:
        raise _refusal(EQUIVALENCE, "guidance is another", "write {high: 4.0, low: 3.0}", ("sampling", "guidance"))
    if sampling.boundary not in (None, BOUNDARY):
        raise _refusal(EQUIVALENCE, "the boundary is another", f"write {BOUNDARY}", ("sampling", "boundary"))
    for index, shape in enumerate(shapes):
        if (shape.height, shape.width, shape.frames) != SHAPE:
            message = "the benchmark makes videos of 720 x 1280 pixels and 81 frames"
            hint = "write {name: 720p, height: 720, width: 1280, frames: 81}"
            raise _refusal(EQUIVALENCE, message, hint, ("shapes", index))
    if recipe.precision.compute != "fp32" and "vae" not in recipe.islands:
        raise _refusal(NUMERICS, "vae is not among the islands", "add vae to them", ("precision", "islands"))


def _refusal(rule: Rule, message: str, hint: str, at: Sequence[str | int]) -> Exception:
    return fault(f"{message}; the closed division's rule {rule.name!r}: {rule.says}", f"{hint}, {OPEN_HINT}", tuple(at))
