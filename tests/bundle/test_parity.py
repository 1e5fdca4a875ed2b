"""The central promise: a bundle makes the video that diffusers makes from the same checkpoint, noise and prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from wanc.bench.reference import DiffusersReference, Video, psnr, relative_error
from wanc.recipe.load import load
from wanc.recipe.schema import Recipe
from wanc.runtime.noise import initial_noise
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.video_bundle import VideoBundle

from .conftest import MakeVariant, Variant

ENGLISH = "A red circle moves to the left."
CHINESE = "一个蓝色的正方形向上移动。"
SEED = 3

# Both sides compute in float32 and sum in other orders. Twenty guided steps of a model with random weights gather some
# 3e-7 of that; trained weights may amplify it, while one wrong timestep or weight costs 1e-2 or more.
MOST_LATENT_ERROR = 1e-3
# Rounding to 8 bits flips single values where the sides differ by a hair; an offset of 1.4 levels everywhere is 45 dB.
LEAST_PSNR = 45.0

# diffusers' DPM-Solver++ does it to its own tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def recipe(tiny_recipe: Path) -> Recipe:
    return load(tiny_recipe)[0].recipe


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline.open(tiny_bundle)


@pytest.fixture(scope="module")
def reference(recipe: Recipe, pipeline: Pipeline) -> DiffusersReference:
    return DiffusersReference(recipe.model.source, pipeline.bundle.model.text_length)


@pytest.fixture(scope="module")
def english(reference: DiffusersReference, pipeline: Pipeline, recipe: Recipe) -> tuple[Video, Video]:
    return both(reference, pipeline, recipe, ENGLISH)


def both(
    reference: DiffusersReference,
    pipeline: Pipeline,
    recipe: Recipe,
    prompt: str,
    *,
    shape: str | None = None,
    frames: int | None = None,
) -> tuple[Video, Video]:
    """The bundle's video and the reference's, from one noise."""
    ours = pipeline.generate(prompt, seed=SEED, shape=shape, frames=frames)
    noise = initial_noise(pipeline.bundle.latent_shape(pipeline.bundle.shape(shape, frames)), SEED)
    return Video(ours.latents, ours.frames), reference.generate(prompt, noise, recipe.sampling)


def assert_same_video(ours: Video, theirs: Video) -> None:
    assert ours.frames.shape == theirs.frames.shape
    assert theirs.frames.std() > 5, "a blank video proves nothing"
    assert relative_error(ours.latents, theirs.latents) <= MOST_LATENT_ERROR
    assert psnr(ours.frames, theirs.frames) >= LEAST_PSNR


def test_an_english_prompt_gives_the_video_of_diffusers(english: tuple[Video, Video]) -> None:
    assert_same_video(*english)
    assert english[0].frames.shape == (17, 64, 64, 3)


def test_a_chinese_prompt_gives_the_video_of_diffusers(
    reference: DiffusersReference, pipeline: Pipeline, recipe: Recipe, english: tuple[Video, Video]
) -> None:
    ours, theirs = both(reference, pipeline, recipe, CHINESE)
    assert_same_video(ours, theirs)
    # Otherwise equal videos would say nothing about the text's road.
    assert relative_error(ours.latents, english[0].latents) > 2 * MOST_LATENT_ERROR


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("euler-5", ["sampling.solver=euler", "sampling.steps=5"]),
        ("dpm-5", ["sampling.solver=dpm++", "sampling.steps=5"]),
        ("boundary-5", ["sampling.steps=5", "sampling.boundary=0.6"]),
        ("negative-5", ["sampling.steps=5", "sampling.negative_prompt=一个蓝色的正方形向上移动。"]),
    ],
)
def test_other_sampling_gives_the_video_of_diffusers(
    reference: DiffusersReference, variant: MakeVariant, name: str, overrides: list[str]
) -> None:
    made = variant(name, *overrides)
    assert_same_video(*both(reference, Pipeline.open(made.root), made.recipe, ENGLISH, frames=5))


def test_another_shape_and_frame_count_give_the_video_of_diffusers(
    reference: DiffusersReference, variant: MakeVariant
) -> None:
    made = variant("unipc-5", "sampling.steps=5")
    ours, theirs = both(reference, Pipeline.open(made.root), made.recipe, ENGLISH, shape="96p-wide", frames=9)
    assert_same_video(ours, theirs)
    assert ours.frames.shape == (9, 64, 96, 3)


def test_few_step_sampling_gives_the_video_of_diffusers(reference: DiffusersReference, few_step: Variant) -> None:
    assert_same_video(*both(reference, Pipeline.open(few_step.root), few_step.recipe, CHINESE, frames=5))


def test_one_frame_gives_the_image_of_diffusers(reference: DiffusersReference, few_step: Variant) -> None:
    """A single latent frame never reaches the decoder's steady graph."""
    assert_same_video(*both(reference, Pipeline.open(few_step.root), few_step.recipe, ENGLISH, frames=1))


def test_the_comparison_sees_swapped_experts(tiny_bundle: Path, english: tuple[Video, Video]) -> None:
    bundle = VideoBundle.open(tiny_bundle)
    high, low = ("denoiser_high", "step"), ("denoiser_low", "step")
    engines = {**bundle.engines, high: bundle.engines[low], low: bundle.engines[high]}
    ours = Pipeline(replace(bundle, engines=engines)).generate(ENGLISH, seed=SEED)
    assert relative_error(ours.latents, english[1].latents) > 10 * MOST_LATENT_ERROR
    assert psnr(ours.frames, english[1].frames) < LEAST_PSNR
