"""Settings that a Wan model would take without a word: each is refused, with its line, and with what would go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from wanc.errors import RecipeError
from wanc.models.wan.lints import LINTS, check_sampling
from wanc.recipe.load import load
from wanc.recipe.schema import Lint
from wanc.runtime.solvers.create import create_schedule

RECIPES = Path(__file__).parents[2] / "recipes"

TWO = ("text_encoder", "denoiser_high", "denoiser_low", "vae_decoder")
ONE = ("text_encoder", "denoiser_high", "vae_decoder")

RECIPE = """\
wanc: 1
name: wan
model: {source: model}
shapes: [{name: 480p, height: 480, width: 832, frames: 81}]
sampling:
  solver: unipc
  steps: 40
  shift: 12.0
  guidance: {high: 4.0, low: 3.0}
"""

Judge = Callable[..., RecipeError | None]


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """What the recipe is refused with, after some of its text is replaced; None where it passes."""
    monkeypatch.chdir(tmp_path)

    def run(
        *changes: tuple[str, str],
        components: tuple[str, ...] = TWO,
        boundary: float | None = 0.875,
        shift: float | None = None,
        overrides: tuple[str, ...] = (),
    ) -> RecipeError | None:
        text = RECIPE
        for old, new in changes:
            assert text.count(old) == 1
            text = text.replace(old, new)
        Path("recipe.yaml").write_text(text)
        (loaded,) = load("recipe.yaml", overrides)
        try:
            check_sampling(loaded, components, boundary, shift)
        except RecipeError as error:
            return error
        return None

    return run


SWAPPED = (
    "sampling.guidance: high (3) is below low (4): the first steps, which the high-noise expert makes and which settle "
    "what is to be seen, would follow the prompt less than the last ones"
)
ORIGIN = (
    "were they swapped? Wan's own tuples are (low, high), and diffusers' guidance_scale is high, its guidance_scale_2 "
    "low; if it is meant, add `allow: [guidance-order]` to sampling"
)
CONVERTED = (
    "sampling.shift: 3 is what converted checkpoints carry whichever the model: of 40 steps the high-noise expert "
    "would make 13 and the low-noise expert 27, against 26 and 14 at 12, which Wan2.2-T2V-A14B was tuned with"
)
IDLE = "take more steps, another shift or another boundary; if it is meant, add `allow: [idle-expert]` to sampling"

# name: (old text, new text, line:column, message, hint)
REFUSED_OF_TWO: dict[str, tuple[str, str, str, str, str]] = {
    "guidance-order": ("{high: 4.0, low: 3.0}", "{high: 3.0, low: 4.0}", "9:13", SWAPPED, ORIGIN),
    "flow-shift": (
        "shift: 12.0",
        "shift: 3.0",
        "8:10",
        CONVERTED,
        "write `shift: 12.0`; if it is meant, add `allow: [flow-shift]` to sampling",
    ),
    "idle-expert": (
        "steps: 40",
        "steps: 2",
        "7:10",
        "sampling.steps: the timesteps go from 999 to 923, and none of them is for the low-noise expert, which works "
        "below 875",
        IDLE,
    ),
    "idle-expert of a few-step model": (
        "steps: 40\n  shift: 12.0\n  guidance: {high: 4.0, low: 3.0}",
        "timesteps: [500, 250]\n  shift: 5.0",
        "7:14",
        "sampling.timesteps: the timesteps go from 833 to 625, and none of them is for the high-noise expert, which "
        "works from 875 up",
        IDLE,
    ),
    "checkpoint-shift": (
        "shift: 12.0",
        "shift: 4.0",
        "8:10",
        "sampling.shift: the checkpoint's scheduler has 12, and 4 is another schedule than it was tuned with",
        "write `shift: 12.0`; if it is meant, add `allow: [checkpoint-shift]` to sampling",
    ),
    "shifted-timesteps": (
        "steps: 40\n  shift: 12.0\n  guidance: {high: 4.0, low: 3.0}",
        "timesteps: [1000, 857.1, 666.7, 400]\n  shift: 2.0",
        "7:14",
        "sampling.timesteps: these are evenly spaced ones that are shifted by 2 already, and would be shifted once "
        "more",
        "write `timesteps: [1000, 750, 500, 250]`, or these with `shift: 1.0`; if it is meant, add "
        "`allow: [shifted-timesteps]` to sampling",
    ),
}
MODEL_SHIFT = 12.0


@pytest.mark.parametrize("case", REFUSED_OF_TWO)
def test_what_looks_like_a_mistake_is_refused(case: str, judge: Judge) -> None:
    old, new, place, message, hint = REFUSED_OF_TWO[case]
    error = judge((old, new), shift=MODEL_SHIFT)
    assert error is not None
    assert (error.message, error.where, error.hint) == (message, f"recipe.yaml:{place}", hint)
    assert (error.exit_code, error.__cause__) == (2, None)


def test_the_hint_names_the_shift_of_the_checkpoint_itself(judge: Judge) -> None:
    error = judge(("shift: 12.0", "shift: 3.0"), shift=5.0)
    assert error is not None and error.hint is not None and error.hint.startswith("write `shift: 5.0`")
    assert judge(("shift: 12.0", "shift: 5.0"), shift=5.0) is None


@pytest.mark.parametrize("case", REFUSED_OF_TWO)
def test_what_is_meant_is_allowed_by_its_name_alone(case: str, judge: Judge) -> None:
    old, new, *_ = REFUSED_OF_TWO[case]
    name = case.split(" ")[0]
    others = ", ".join(sorted({*LINTS} - {name}))
    assert judge((old, new), shift=MODEL_SHIFT, overrides=(f"sampling.allow=[{name}]",)) is None
    assert judge((old, new), shift=MODEL_SHIFT, overrides=(f"sampling.allow=[{others}]",)) is not None


def test_what_is_recommended_passes(judge: Judge) -> None:
    assert judge() is None
    assert judge(("{high: 4.0, low: 3.0}", "{high: 3.5, low: 3.5}")) is None, "equal scales are in order"
    assert judge(("shift: 12.0", "shift: 3.0000001")) is None, "only the very value of converted checkpoints"
    assert judge(("  guidance: {high: 4.0, low: 3.0}\n", ""), ("steps: 40", "timesteps: [1000, 750, 500, 250]")) is None


@pytest.mark.parametrize(("boundary", "idle"), [(0.999, False), (0.9991, True)])
def test_one_step_at_the_boundary_is_work_enough(boundary: float, idle: bool, judge: Judge) -> None:
    error = judge(("shift: 12.0", "shift: 5.0"), boundary=boundary)
    assert (error is not None and "high-noise expert, which works from" in error.message) == idle


def test_the_recipes_boundary_counts_and_not_the_checkpoints(judge: Judge) -> None:
    with_boundary = ("steps: 40", "steps: 40\n  boundary: 0.1")
    assert judge(with_boundary) is not None
    error = judge(("steps: 40", "steps: 40\n  boundary: 0.9"), boundary=0.1)
    assert error is None


def test_findings_are_reported_together(judge: Judge) -> None:
    error = judge(("{high: 4.0, low: 3.0}", "{high: 3.0, low: 4.0}"), ("shift: 12.0", "shift: 3.0"))
    assert error is not None
    first, second = error.message.split("\n  also recipe.yaml:8:10: ")
    assert (first, error.hint) == (SWAPPED, ORIGIN)
    assert second.startswith(CONVERTED)


def test_an_override_is_the_place_of_its_finding(judge: Judge) -> None:
    error = judge(overrides=("sampling.shift=3",))
    assert error is not None
    assert error.where == "--set sampling.shift=3"


FEW_STEPS = "steps: 40\n  shift: 12.0\n  guidance: {high: 4.0, low: 3.0}"


@pytest.mark.parametrize(
    ("timesteps", "shift", "is_shifted"),
    [
        ("[1000, 750, 500, 250]", 5.0, False),  # as a few-step model has them: before the shift
        ("[1000, 937, 833, 625]", 5.0, True),
        ("[999, 937, 833, 625]", 5.0, True),  # cut to whole numbers, as the solvers' are
        ("[1000, 960, 888.89, 727.27]", 8.0, True),
        ("[1000, 833.3]", 5.0, True),
        ("[1000, 500]", 5.0, False),
        ("[1000]", 5.0, False),
        ("[1000, 757, 522]", 8.0, False),
        ("[1000, 937, 833, 625]", 8.0, False),  # shifted by something else: nobody can tell
        ("[1000, 937, 833, 625]", 1.0, False),
        ("[1000, 750, 500, 250]", 1.005, False),  # a shift too small to tell from none
    ],
)
def test_timesteps_that_are_shifted_already(timesteps: str, shift: float, is_shifted: bool, judge: Judge) -> None:
    error = judge((FEW_STEPS, f"timesteps: {timesteps}\n  shift: {shift}"), overrides=("sampling.allow=[idle-expert]",))
    assert (error is not None and "are shifted by" in error.message) == is_shifted


@pytest.mark.parametrize("solver", ["unipc", "dpm++", "euler"])
def test_every_solvers_own_list_is_recognised(solver: str, judge: Judge) -> None:
    listed = create_schedule(solver, shift=7.0, steps=6).timesteps.tolist()
    error = judge((FEW_STEPS, f"timesteps: {listed}\n  shift: 7.0"), overrides=("sampling.allow=[idle-expert]",))
    assert error is not None
    assert "are shifted by 7 already" in error.message


@pytest.mark.parametrize(
    ("ours", "theirs", "differ"),
    [
        (12.0, None, False),
        (12.0, 3.0, False),  # what every converted checkpoint carries
        (12.0, 1.0, False),  # the class's default
        (12.0, 12.0, False),
        (12.0, 9.0, False),  # as another size of video would have it
        (12.0, 5.0, True),
        (5.0, 12.0, True),
    ],
)
def test_the_schedulers_shift(ours: float, theirs: float | None, differ: bool, judge: Judge) -> None:
    error = judge(("shift: 12.0", f"shift: {ours}"), shift=theirs)
    assert (error is not None and "the checkpoint's scheduler has" in error.message) == differ
    few = judge((FEW_STEPS, f"timesteps: [1000, 750, 500, 250]\n  shift: {ours}"), shift=theirs)
    assert few is None, "the shift of listed timesteps is the list's own"


# contradictions, which nothing allows

ALLOW_ALL = f"sampling.allow=[{', '.join(get_args(Lint))}]"


def test_a_boundary_for_one_expert(judge: Judge) -> None:
    same = ("{high: 4.0, low: 3.0}", "{high: 6.0, low: 6.0}")
    assert judge(same, components=ONE, boundary=None) is None
    error = judge(
        same, ("steps: 40", "steps: 40\n  boundary: 0.9"), components=ONE, boundary=None, overrides=(ALLOW_ALL,)
    )
    assert error is not None
    assert error.message == "sampling.boundary: one expert makes all of the steps: there is none to change over to"
    assert error.where == "recipe.yaml:8:13"
    assert error.hint == "remove it, or build both experts of a model that has two"


def test_one_expert_of_a_checkpoint_of_two(judge: Judge) -> None:
    same, chosen = ("{high: 4.0, low: 3.0}", "{high: 6.0, low: 6.0}"), "model.components=[denoiser_high]"
    error = judge(same, components=ONE, overrides=(ALLOW_ALL,))
    assert error is not None
    assert error.message == "sampling.boundary: the checkpoint changes over to a second expert at 0.875, and has none"
    assert error.hint == (
        "is the download complete? Of a model with one expert, boundary_ratio in model_index.json is null"
    )
    error = judge(same, components=ONE, overrides=(ALLOW_ALL, chosen))
    assert error is not None
    assert error.message == (
        "sampling.boundary: the checkpoint changes over to a second expert at 0.875, and that one is not built"
    )
    assert error.where == "recipe.yaml:6:3"
    assert error.hint == "leave model.components out to build all of the model's"


def test_two_experts_without_a_boundary(judge: Judge) -> None:
    error = judge(boundary=None, overrides=(ALLOW_ALL,))
    assert error is not None
    assert error.message == (
        "sampling.boundary: the model has two experts, and neither recipe nor checkpoint says where they change over"
    )
    assert error.where == "recipe.yaml:6:3"
    assert error.hint == "add a line such as `boundary: 0.875`, which is Wan2.2-T2V-A14B's"
    assert judge(("steps: 40", "steps: 40\n  boundary: 0.875"), boundary=None) is None


def test_two_scales_for_one_expert(judge: Judge) -> None:
    error = judge(components=ONE, boundary=None, overrides=(ALLOW_ALL,))
    assert error is not None
    assert error.message == (
        "sampling.guidance.low: one expert makes all of the steps, with guidance.high (4): 3 would do nothing"
    )
    assert error.where == "recipe.yaml:9:30"
    assert error.hint == "write the same scale twice, such as {high: 4, low: 4}"


def test_the_lints_of_two_experts_say_nothing_of_one(judge: Judge) -> None:
    same = ("{high: 4.0, low: 3.0}", "{high: 6.0, low: 6.0}")
    assert judge(same, ("shift: 12.0", "shift: 3.0"), components=ONE, boundary=None) is None
    assert judge(same, ("steps: 40", "steps: 1"), components=ONE, boundary=None) is None


def test_settings_without_a_schedule(judge: Judge) -> None:
    error = judge(("steps: 40", "steps: 1000"), ("shift: 12.0", "shift: 1.0e+12"), overrides=(ALLOW_ALL,))
    assert error is not None
    assert error.message == "these settings make no schedule"
    assert error.where == "recipe.yaml:6:3"
    assert str(error.__cause__) == "two steps have the same noise level"


# ready recipes


@pytest.mark.parametrize(
    ("name", "components", "boundary"),
    [
        ("tiny-wan", TWO, 0.875),
        ("tiny-wan-rtx", TWO, 0.875),
        ("wan2.2-t2v-a14b", TWO, 0.875),
        ("wan2.2-t2v-a14b-bf16", TWO, 0.875),
        ("wan2.2-t2v-a14b-int8", TWO, 0.875),
        ("wan2.2-t2v-a14b-fp8", TWO, 0.875),
        ("mlperf-wan2.2", TWO, 0.875),
        ("wan2.1-t2v-1.3b", ONE, None),
        ("tiny-wan-causal", ONE, None),
        ("self-forcing-1.3b", ONE, None),
    ],
)
def test_ready_recipes_pass(name: str, components: tuple[str, ...], boundary: float | None) -> None:
    for loaded in load(RECIPES / f"{name}.yaml"):
        check_sampling(loaded, components, boundary)


def test_no_ready_recipe_is_forgotten() -> None:
    found = {path.stem for path in RECIPES.glob("*.yaml")}
    large = {f"wan2.2-t2v-a14b{end}" for end in ("", "-bf16", "-int8", "-fp8")}
    assert found == {
        "self-forcing-1.3b",
        "tiny-wan",
        "tiny-wan-causal",
        "tiny-wan-int8",
        "tiny-wan-matrix",
        "tiny-wan-rtx",
        "tiny-wan-text-encoder",
        "tiny-wan-vae-decoder",
        "wan2.1-t2v-1.3b",
        "mlperf-wan2.2",
        *large,
    }


def test_every_lint_has_a_case() -> None:
    assert {*LINTS} == {*get_args(Lint)} == {name.split(" ")[0] for name in REFUSED_OF_TWO}
