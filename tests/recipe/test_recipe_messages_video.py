from __future__ import annotations

import pytest

from wanc.errors import RecipeError
from wanc.recipe.load import load

from .conftest import AssertRefused, Write

MODEL_OWN_SCALES = "add a line such as `guidance: {high: 4.0, low: 3.0}`, the scales of Wan2.2-T2V-A14B"
GUIDANCE = (
    "Guidance scales, {high: for the high-noise expert, low: for the low-noise expert}; few-step models have none."
)
STEPS = "The number of denoising steps, evenly spaced before the shift."
PROFILE = "it has to be letters, digits, '_' and '-', beginning with a letter or a digit"
TILES = "because the VAE makes one point of 8 x 8 pixels, and the denoiser one token of 2 x 2 points"

# name: (what stands in the recipe, what replaces it, line:column, message, hint)
WRONG: dict[str, tuple[str, str, str, str, str]] = {
    # shapes
    "odd height": (
        "height: 64, width: 64",
        "height: 100, width: 64",
        "12:25",
        f"shapes.0.height: 100 is not a multiple of 16: 4 pixels would be left over, {TILES}",
        "the nearest are 96 and 112",
    ),
    "odd width": (
        "width: 96",
        "width: 854",
        "13:41",
        f"shapes.1.width: 854 is not a multiple of 16: 6 pixels would be left over, {TILES}",
        "the nearest are 848 and 864",
    ),
    "small height": (
        "height: 64, width: 64",
        "height: 8, width: 64",
        "12:25",
        "shapes.0.height has to be at least 16, not the number 8",
        "In pixels, a multiple of 16; the model knows no positions beyond 16384.",
    ),
    "huge height": (
        "height: 64, width: 64",
        "height: 16400, width: 64",
        "12:25",
        "shapes.0.height has to be at most 16384, not the number 16400",
        "In pixels, a multiple of 16; the model knows no positions beyond 16384.",
    ),
    "height as float": (
        "height: 64, width: 64",
        "height: 64.0, width: 64",
        "12:25",
        "shapes.0.height has to be a whole number, not the number 64.0",
        "write 64",
    ),
    "frames": (
        "width: 64, frames: 17",
        "width: 64, frames: 80",
        "12:48",
        "shapes.0.frames: 80 is not 4n + 1: no number of latent frames decodes to it, because the first makes one "
        "frame and each later one four",
        "the nearest are 77 and 81",
    ),
    "too many frames": (
        "width: 64, frames: 17",
        "width: 64, frames: 4097",
        "12:48",
        "shapes.0.frames has to be at most 4093, not the number 4097",
        "Frames of video, 4n + 1: 17, 33, 49, 81; the model knows no positions beyond 4093.",
    ),
    "same name": (
        "name: 96p-wide",
        "name: 64P",
        "13:12",
        "shapes.1.name: the name 64P is taken by shapes.0",
        "give each shape a name of its own, different in more than case",
    ),
    "dot in a profile's name": ("name: 64p", "name: 64.p", "12:12", "shapes.0.name cannot be 64.p", PROFILE),
    "shape as text": (
        "  - {name: 64p, height: 64, width: 64, frames: 17}",
        "  - 64p",
        "12:5",
        "shapes.0 has to be a mapping, not the text 64p",
        "its keys are name, height, width, frames",
    ),
    "null in a list": (
        "  - {name: 64p, height: 64, width: 64, frames: 17}",
        "  -",
        "12:4",
        "shapes.0 has to be a mapping, not null",
        "its keys are name, height, width, frames",
    ),
    # sampling
    "unknown solver": (
        "solver: unipc",
        "solver: unicp",
        "16:11",
        "sampling.solver cannot be unicp",
        "did you mean unipc?",
    ),
    "strange solver": (
        "solver: unipc",
        "solver: no",
        "16:11",
        "sampling.solver cannot be 'no'",
        "it can be unipc, euler, dpm++ or lcm",
    ),
    "no steps": ("steps: 20", "steps: 0", "17:10", "sampling.steps has to be at least 1, not the number 0", STEPS),
    "1,001 steps": (
        "steps: 20",
        "steps: 1001",
        "17:10",
        "sampling.steps has to be at most 1000, not the number 1001",
        STEPS,
    ),
    "steps as text": (
        "steps: 20",
        'steps: "20"',
        "17:10",
        "sampling.steps has to be a whole number, not the text '20'",
        "write 20",
    ),
    "steps as true": ("steps: 20", "steps: true", "17:10", "sampling.steps has to be a whole number, not true", STEPS),
    "steps as list": (
        "steps: 20",
        "steps: [1, 2]",
        "17:10",
        "sampling.steps has to be a whole number, not a list of 2",
        STEPS,
    ),
    "steps as mapping": (
        "steps: 20",
        "steps: {a: 1}",
        "17:10",
        "sampling.steps has to be a whole number, not a mapping",
        STEPS,
    ),
    "neither steps nor timesteps": (
        "  steps: 20\n",
        "",
        "16:3",
        "sampling: either steps or timesteps has to be given",
        "add a line such as `steps: 40`",
    ),
    "steps and timesteps": (
        "steps: 20",
        "steps: 20\n  timesteps: [1000, 500]",
        "18:14",
        "sampling.timesteps: steps and timesteps exclude each other",
        "remove one of them; `steps: null` takes away an inherited one",
    ),
    "rising timesteps": (
        "steps: 20",
        "timesteps: [1000, 500, 500.5]",
        "17:26",
        "sampling.timesteps.2: 500.5 does not fall below 500, the one before it",
        "order them from noise to video, such as [1000, 750, 500, 250]",
    ),
    "timestep at the end": (
        "steps: 20",
        "timesteps: [1000, 0]",
        "17:21",
        "sampling.timesteps.1 has to be above 0, not the number 0",
        "Instead of steps, for few-step models: the timesteps before the shift, such as [1000, 750, 500, 250].",
    ),
    "guided few-step model": (
        "steps: 20",
        "timesteps: [1000, 500]",
        "19:13",
        "sampling.guidance: a model with timesteps of its own takes no guidance",
        "remove guidance, or set both scales to 1",
    ),
    "no guidance": (
        "  guidance: {high: 4.0, low: 3.0}\n",
        "",
        "16:3",
        "sampling: guidance is missing",
        MODEL_OWN_SCALES,
    ),
    "one scale": (
        "guidance: {high: 4.0, low: 3.0}",
        "guidance: 4.0",
        "19:13",
        "sampling.guidance has to be a mapping, not the number 4.0",
        "write {high: 4.0, low: 4.0}",
    ),
    "half of the scales": (
        "guidance: {high: 4.0, low: 3.0}",
        "guidance: {high: 4.0}",
        "19:3",
        "sampling.guidance.low is missing",
        "For the low-noise expert, which makes the last steps.",
    ),
    "scale below 1": (
        "high: 4.0",
        "high: 0.5",
        "19:20",
        "sampling.guidance.high has to be at least 1, not the number 0.5",
        "For the high-noise expert, which makes the first steps.",
    ),
    "no shift": (
        "  shift: 5.0\n",
        "",
        "15:1",
        "sampling.shift is missing",
        "How much the steps lean towards high noise; 1 is not at all, Wan2.2-T2V-A14B was tuned with 12.",
    ),
    "shift of nothing": (
        "shift: 5.0",
        "shift: 0.0",
        "18:10",
        "sampling.shift has to be above 0, not the number 0.0",
        "How much the steps lean towards high noise; 1 is not at all, Wan2.2-T2V-A14B was tuned with 12.",
    ),
    "unknown lint": (
        "steps: 20",
        "steps: 20\n  allow: [guidence-order]",
        "18:11",
        "sampling.allow.0 cannot be guidence-order",
        "did you mean guidance-order?",
    ),
    "lint twice": (
        "steps: 20",
        "steps: 20\n  allow: [flow-shift, flow-shift]",
        "18:23",
        "sampling.allow.1: flow-shift stands twice",
        "name each once",
    ),
    "boundary as a timestep": (
        "boundary: 0.875",
        "boundary: 875",
        "20:13",
        "sampling.boundary has to be at most 1, not the number 875",
        "The noise level, 0 to 1, from which up the high-noise expert works; the model's own unless given.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_its_place(case: str, assert_refused: AssertRefused) -> None:
    assert_refused(*WRONG[case])


def test_the_nearest_size_is_a_legal_one(write: Write, tiny: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", tiny.replace("height: 64, width: 64", "height: 16383, width: 64")))
    assert caught.value.hint == "the nearest are 16368 and 16384"
    with pytest.raises(RecipeError) as caught:
        load(write("recipe.yaml", tiny.replace("width: 64, frames: 17", "width: 64, frames: 4092")))
    assert caught.value.hint == "the nearest are 4089 and 4093"
