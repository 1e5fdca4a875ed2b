"""Settings of the sampling that a Wan model would take without a word, and make a worse video with.

What contradicts the model is refused. What only looks like a known mistake is refused unless the recipe says under
`sampling.allow` that it is meant. Sources: `wan/configs` and `wan/text2video.py` of Wan2.2, `WanPipeline` and
`convert_wan_to_diffusers.py` of diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from wanc.errors import RecipeError, UserError
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.problems import Problem, as_error
from wanc.recipe.schema import Lint, Sampling
from wanc.runtime.solvers.create import create_schedule
from wanc.runtime.solvers.schedule import TRAINING_TIMESTEPS, Schedule, count_high_noise_steps

EXPERTS = ("denoiser_high", "denoiser_low")
# What converted checkpoints carry whichever the model, and what the text-to-video model of two experts was tuned with.
CONVERTED_SHIFT = 3.0
TUNED_SHIFT = 12.0


@dataclass(frozen=True)
class Case:
    """Sampling settings, and the model that they are for: its experts, and where they change over."""

    sampling: Sampling
    experts: int
    boundary: float | None

    def schedule(self, shift: float) -> Schedule:
        """The timesteps at this shift. Raises UserError where there are none."""
        sampling = self.sampling
        return create_schedule(sampling.solver, shift=shift, steps=sampling.steps, timesteps=sampling.timesteps)

    def split(self, shift: float) -> tuple[int, int]:
        """How many steps the high-noise expert makes, and how many the low-noise one."""
        assert self.boundary is not None, "two experts without a boundary were refused before"
        schedule = self.schedule(shift)
        high = count_high_noise_steps(schedule.timesteps, self.boundary)
        return high, schedule.steps - high


@dataclass(frozen=True)
class Finding:
    """What is wrong with which key under `sampling`, and what to do about it."""

    key: str
    message: str
    hint: str


Check = Callable[[Case], Finding | None]


def check_sampling(loaded: LoadedRecipe, components: Collection[str], boundary: float | None) -> None:
    """Refuse settings that contradict the model, or that look like a known mistake and are not allowed.

    Args:
        loaded: a recipe with `sampling`.
        components: what is built of the model.
        boundary: where the checkpoint's experts change over, as a fraction of the training timesteps.

    Raises:
        RecipeError: at the recipe's line; all findings of a kind together.
    """
    sampling = loaded.recipe.sampling
    assert sampling is not None, "a recipe without sampling makes no video"
    given = sampling.boundary if sampling.boundary is not None else boundary
    case = Case(sampling, sum(name in components for name in EXPERTS), given)
    _refuse([check(case) for check in CONTRADICTIONS], loaded)
    try:
        case.schedule(sampling.shift)
    except UserError as error:
        raise RecipeError("these settings make no schedule", where=loaded.marks.where("sampling")) from error
    _refuse([_named(name, check(case)) for name, check in LINTS.items() if name not in sampling.allow], loaded)


def _named(name: Lint, finding: Finding | None) -> Finding | None:
    return finding and replace(finding, hint=f"{finding.hint}; if it is meant, add `allow: [{name}]` to sampling")


def _refuse(findings: list[Finding | None], loaded: LoadedRecipe) -> None:
    if found := [_problem(finding, loaded) for finding in findings if finding]:
        raise as_error(found)


def _problem(finding: Finding, loaded: LoadedRecipe) -> Problem:
    key = f"sampling.{finding.key}"
    return Problem(f"{key}: {finding.message}", loaded.marks.where(key), finding.hint)


# Contradictions: nothing makes them right.


def _boundary_of_one_expert(case: Case) -> Finding | None:
    if case.experts != 1 or case.boundary is None:
        return None
    if case.sampling.boundary is None:
        message = f"the checkpoint changes over to a second expert at {case.boundary:g}, and that one is not built"
        return Finding("boundary", message, "leave model.components out to build all of the model's")
    message = "one expert makes all of the steps: there is none to change over to"
    return Finding("boundary", message, "remove it, or build both experts of a model that has two")


def _experts_without_boundary(case: Case) -> Finding | None:
    if case.experts != 2 or case.boundary is not None:
        return None
    message = "the model has two experts, and neither recipe nor checkpoint says where they change over"
    return Finding("boundary", message, "add a line such as `boundary: 0.875`, which is Wan2.2-T2V-A14B's")


def _scale_of_no_expert(case: Case) -> Finding | None:
    """Two scales for one expert were written for another model, and one of them would do nothing."""
    high, low = case.sampling.guidance.high, case.sampling.guidance.low
    if case.experts != 1 or high == low:
        return None
    message = f"one expert makes all of the steps, with guidance.high ({high:g}): {low:g} would do nothing"
    return Finding("guidance.low", message, f"write the same scale twice, such as {{high: {high:g}, low: {high:g}}}")


CONTRADICTIONS: tuple[Check, ...] = (_boundary_of_one_expert, _experts_without_boundary, _scale_of_no_expert)


# Lints: each can be allowed by its name.


def _guidance_order(case: Case) -> Finding | None:
    """The original's tuples are (low, high); diffusers' guidance_scale is high, and its guidance_scale_2 low."""
    high, low = case.sampling.guidance.high, case.sampling.guidance.low
    if case.experts != 2 or high >= low:
        return None
    message = (
        f"high ({high:g}) is below low ({low:g}): the first steps, which the high-noise expert makes and which settle "
        "what is to be seen, would follow the prompt less than the last ones"
    )
    origin = "Wan's own tuples are (low, high), and diffusers' guidance_scale is high, its guidance_scale_2 low"
    return Finding("guidance", message, f"were they swapped? {origin}")


def _flow_shift(case: Case) -> Finding | None:
    """`convert_wan_to_diffusers.py` writes flow_shift 3 for models of two experts as well."""
    if case.experts != 2 or case.sampling.shift != CONVERTED_SHIFT:
        return None
    high, low = case.split(CONVERTED_SHIFT)
    tuned_high, tuned_low = case.split(TUNED_SHIFT)
    message = (
        f"{CONVERTED_SHIFT:g} is what converted checkpoints carry whichever the model: of {high + low} steps the "
        f"high-noise expert would make {high} and the low-noise expert {low}, against {tuned_high} and {tuned_low} at "
        f"{TUNED_SHIFT:g}, which Wan2.2-T2V-A14B was tuned with"
    )
    return Finding("shift", message, f"write `shift: {TUNED_SHIFT:.1f}`")


def _idle_expert(case: Case) -> Finding | None:
    """An expert that makes no step is half of the bundle, for nothing."""
    if case.experts != 2 or case.boundary is None or all(case.split(case.sampling.shift)):
        return None
    timesteps = case.schedule(case.sampling.shift).timesteps
    boundary = case.boundary * TRAINING_TIMESTEPS
    idle = f"low-noise expert, which works below {boundary:g}"
    if timesteps[0] < boundary:
        idle = f"high-noise expert, which works from {boundary:g} up"
    message = f"the timesteps go from {timesteps[0]:g} to {timesteps[-1]:g}, and none of them is for the {idle}"
    hint = "take more steps, another shift or another boundary"
    return Finding("timesteps" if case.sampling.timesteps else "steps", message, hint)


LINTS: Mapping[Lint, Check] = {
    "guidance-order": _guidance_order,
    "flow-shift": _flow_shift,
    "idle-expert": _idle_expert,
}
