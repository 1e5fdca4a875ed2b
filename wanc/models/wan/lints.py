"""Settings of the sampling that a Wan model would take without a word, and make a worse video with.

What contradicts the model is refused. What only looks like a known mistake is refused unless the recipe says under
`sampling.allow` that it is meant. Sources: `wan/configs` and `wan/text2video.py` of Wan2.2, `WanPipeline` and
`convert_wan_to_diffusers.py` of diffusers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from wanc.errors import RecipeError, UserError
from wanc.recipe.load import LoadedRecipe
from wanc.recipe.problems import RecipeProblem, as_error
from wanc.recipe.schema import Lint, SamplingSection
from wanc.runtime.solvers.create import create_schedule
from wanc.runtime.solvers.schedule import TRAINING_TIMESTEPS, Schedule, count_high_noise_steps

EXPERTS = ("denoiser_high", "denoiser_low")
# What converted checkpoints carry whichever the model, and what the text-to-video model of two experts was tuned with.
CONVERTED_SHIFT = 3.0
TUNED_SHIFT = 12.0
# Closer to each other two shifts are a matter of taste: sizes of video differ by as much.
CLOSE_SHIFTS = 1.5


@dataclass(frozen=True)
class SamplingCase:
    """Sampling settings, and what they are for: the model's experts, where these change over, its scheduler's shift.

    `chosen` is whether the recipe chose among the model's components.
    """

    sampling: SamplingSection
    experts: int
    boundary: float | None
    model_shift: float | None
    chosen: bool = False

    @property
    def tuned_shift(self) -> float | None:
        """The scheduler's shift, unless it is that of converted checkpoints, which says nothing."""
        return None if self.model_shift in (1.0, CONVERTED_SHIFT) else self.model_shift

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
class SamplingFault:
    """What is wrong with which key under `sampling`, and what to do about it."""

    key: str
    message: str
    hint: str


Check = Callable[[SamplingCase], SamplingFault | None]


def check_sampling(
    loaded: LoadedRecipe, components: Collection[str], boundary: float | None, shift: float | None = None
) -> None:
    """Refuse settings that contradict the model, or that look like a known mistake and are not allowed.

    Args:
        loaded: a recipe with `sampling`.
        components: what is built of the model.
        boundary: where the checkpoint's experts change over, as a fraction of the training timesteps.
        shift: that of the checkpoint's scheduler; None where it says none.

    Raises:
        RecipeError: at the recipe's line; all faults of a kind together.
    """
    sampling = loaded.recipe.sampling
    assert sampling is not None, "a recipe without sampling makes no video"
    given = sampling.boundary if sampling.boundary is not None else boundary
    chosen = loaded.recipe.model.components is not None
    case = SamplingCase(sampling, sum(name in components for name in EXPERTS), given, shift, chosen)
    _refuse([check(case) for check in CONTRADICTIONS], loaded)
    try:
        case.schedule(sampling.shift)
    except UserError as error:
        raise RecipeError("these settings make no schedule", where=loaded.marks.where("sampling")) from error
    _refuse([_named(name, check(case)) for name, check in LINTS.items() if name not in sampling.allow], loaded)


def _named(name: Lint, fault: SamplingFault | None) -> SamplingFault | None:
    return fault and replace(fault, hint=f"{fault.hint}; if it is meant, add `allow: [{name}]` to sampling")


def _refuse(faults: list[SamplingFault | None], loaded: LoadedRecipe) -> None:
    if found := [_problem(fault, loaded) for fault in faults if fault]:
        raise as_error(found)


def _problem(fault: SamplingFault, loaded: LoadedRecipe) -> RecipeProblem:
    key = f"sampling.{fault.key}"
    return RecipeProblem(f"{key}: {fault.message}", loaded.marks.where(key), fault.hint)


# Contradictions: nothing makes them right.


def _boundary_of_one_expert(case: SamplingCase) -> SamplingFault | None:
    if case.experts != 1 or case.boundary is None:
        return None
    if case.sampling.boundary is None:
        message = f"the checkpoint changes over to a second expert at {case.boundary:g}, and that one is not built"
        hint = "leave model.components out to build all of the model's"
        if not case.chosen:
            message = f"the checkpoint changes over to a second expert at {case.boundary:g}, and has none"
            hint = "is the download complete? Of a model with one expert, boundary_ratio in model_index.json is null"
        return SamplingFault("boundary", message, hint)
    message = "one expert makes all of the steps: there is none to change over to"
    return SamplingFault("boundary", message, "remove it, or build both experts of a model that has two")


def _experts_without_boundary(case: SamplingCase) -> SamplingFault | None:
    if case.experts != 2 or case.boundary is not None:
        return None
    message = "the model has two experts, and neither recipe nor checkpoint says where they change over"
    return SamplingFault("boundary", message, "add a line such as `boundary: 0.875`, which is Wan2.2-T2V-A14B's")


def _scale_of_no_expert(case: SamplingCase) -> SamplingFault | None:
    """Two scales for one expert were written for another model, and one of them would do nothing."""
    high, low = case.sampling.guidance.high, case.sampling.guidance.low
    if case.experts != 1 or high == low:
        return None
    message = f"one expert makes all of the steps, with guidance.high ({high:g}): {low:g} would do nothing"
    return SamplingFault(
        "guidance.low", message, f"write the same scale twice, such as {{high: {high:g}, low: {high:g}}}"
    )


CONTRADICTIONS: tuple[Check, ...] = (_boundary_of_one_expert, _experts_without_boundary, _scale_of_no_expert)


# Lints: each can be allowed by its name.


def _guidance_order(case: SamplingCase) -> SamplingFault | None:
    """The original's tuples are (low, high); diffusers' guidance_scale is high, and its guidance_scale_2 low."""
    high, low = case.sampling.guidance.high, case.sampling.guidance.low
    if case.experts != 2 or high >= low:
        return None
    message = (
        f"high ({high:g}) is below low ({low:g}): the first steps, which the high-noise expert makes and which settle "
        "what is to be seen, would follow the prompt less than the last ones"
    )
    origin = "Wan's own tuples are (low, high), and diffusers' guidance_scale is high, its guidance_scale_2 low"
    return SamplingFault("guidance", message, f"were they swapped? {origin}")


def _flow_shift(case: SamplingCase) -> SamplingFault | None:
    """`convert_wan_to_diffusers.py` writes flow_shift 3 for models of two experts as well."""
    if case.experts != 2 or case.sampling.shift != CONVERTED_SHIFT:
        return None
    tuned = case.tuned_shift or TUNED_SHIFT
    (high, low), (tuned_high, tuned_low) = case.split(CONVERTED_SHIFT), case.split(tuned)
    message = (
        f"{CONVERTED_SHIFT:g} is what converted checkpoints carry whichever the model: of {high + low} steps the "
        f"high-noise expert would make {high} and the low-noise expert {low}, against {tuned_high} and {tuned_low} at "
        f"{tuned:g}, which {'its own scheduler has' if tuned != TUNED_SHIFT else 'Wan2.2-T2V-A14B was tuned with'}"
    )
    return SamplingFault("shift", message, f"write `shift: {tuned:.1f}`")


def _checkpoint_shift(case: SamplingCase) -> SamplingFault | None:
    """A scheduler's shift is said by whoever trained the model, unless it is that of converted checkpoints.

    The shift of a list of timesteps belongs to that list.
    """
    ours, theirs = case.sampling.shift, case.tuned_shift
    if theirs is None or case.sampling.timesteps or _flow_shift(case):
        return None
    if max(ours, theirs) / min(ours, theirs) < CLOSE_SHIFTS:
        return None
    message = f"the checkpoint's scheduler has {theirs:g}, and {ours:g} is another schedule than it was tuned with"
    return SamplingFault("shift", message, f"write `shift: {theirs:.1f}`")


def _shifted_timesteps(case: SamplingCase) -> SamplingFault | None:
    """What a scheduler lists is shifted already; the same list is then shifted once more."""
    given, shift = case.sampling.timesteps, case.sampling.shift
    if given is None or len(given) < 2 or shift == 1:
        return None
    levels = _evenly_spaced(_unshifted(given, shift))
    again = [shift * level / (1 + (shift - 1) * level) * TRAINING_TIMESTEPS for level in levels]
    if not _are_close(given, again) or _are_close(given, _evenly_spaced(given)):
        return None
    message = f"these are evenly spaced ones that are shifted by {shift:g} already, and would be shifted once more"
    raw = ", ".join(f"{level * TRAINING_TIMESTEPS:.0f}" for level in levels)
    return SamplingFault("timesteps", message, f"write `timesteps: [{raw}]`, or these with `shift: 1.0`")


def _are_close(timesteps: Sequence[float], others: Sequence[float]) -> bool:
    # Schedulers cut their timesteps to whole numbers, the first and the last as well, by which the others are judged.
    return all(abs(one - other) <= 3 for one, other in zip(timesteps, others, strict=True))


def _unshifted(timesteps: Sequence[float], shift: float) -> list[float]:
    """The noise levels, 0 to 1, that the shift makes these timesteps of."""
    levels = (timestep / TRAINING_TIMESTEPS for timestep in timesteps)
    return [level / (shift - (shift - 1) * level) for level in levels]


def _evenly_spaced(values: Sequence[float]) -> list[float]:
    """The evenly spaced values nearest to these; of two only the second can tell, which then is half of the first."""
    first, last = values[0], values[-1] if len(values) > 2 else values[0] / 2
    return [first + (last - first) * index / (len(values) - 1) for index in range(len(values))]


def _idle_expert(case: SamplingCase) -> SamplingFault | None:
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
    return SamplingFault("timesteps" if case.sampling.timesteps else "steps", message, hint)


LINTS: Mapping[Lint, Check] = {
    "guidance-order": _guidance_order,
    "flow-shift": _flow_shift,
    "checkpoint-shift": _checkpoint_shift,
    "shifted-timesteps": _shifted_timesteps,
    "idle-expert": _idle_expert,
}
