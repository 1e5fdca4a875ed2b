"""The detector reads clips right, also blurred and noisy ones as an autoencoder makes them, and nothing by chance."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts import evaluate_tiny_wan
from scripts.tiny_wan import evaluation, scenes
from wanc.report.detectors.drawn_shapes import Attributes
from wanc.report.detectors.moving_shapes import UNKNOWN, detect

CLIPS = 384  # four of each combination


def rendered(index: int) -> tuple[Attributes, NDArray[np.uint8]]:
    """Clip number ``index`` of seeds that nothing trains on."""
    attributes = scenes.ALL_COMBINATIONS[index % len(scenes.ALL_COMBINATIONS)]
    return attributes, scenes.render(scenes.random_scene(np.random.default_rng([77, index]), attributes))


def spoilt(clip: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Blur over about two pixels, wash out a tenth of the colour, and add noise of six grey levels."""
    pixels = clip.astype(np.float32)
    for axis in (1, 2):
        pixels = (np.roll(pixels, 1, axis) + 2 * pixels + np.roll(pixels, -1, axis)) / 4
    pixels = 0.9 * pixels + 0.1 * pixels.mean(axis=-1, keepdims=True)
    return np.clip(pixels + random.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "damage", [pytest.param(False, id="clean"), pytest.param(True, id="spoilt", marks=pytest.mark.slow)]
)
def test_detector_reads_rendered_clips(damage: bool) -> None:
    random = np.random.default_rng(8)
    right = np.zeros(3)
    for index in range(CLIPS):
        attributes, clip = rendered(index)
        found = detect(spoilt(clip, random) if damage else clip)
        right += [one == other for one, other in zip(found, attributes, strict=True)]
    assert (right / CLIPS >= 0.98).all(), dict(zip(Attributes._fields, right / CLIPS, strict=True))


def test_detector_follows_a_shape_that_goes_round() -> None:
    """65 frames are about one and a half times through the picture: without that, a path jumps back."""
    right, straight = np.zeros(3), 0.0
    for index, attributes in enumerate(scenes.ALL_COMBINATIONS):
        scene = scenes.random_scene(np.random.default_rng([78, index]), attributes)
        clip = scenes.render_round(scene, 65)
        assert np.array_equal(clip[: scenes.FRAMES], scenes.render(scene))
        right += [one == other for one, other in zip(detect(clip, goes_round=True), attributes, strict=True)]
        straight += detect(clip).direction == attributes.direction
    count = len(scenes.ALL_COMBINATIONS)
    assert (right / count >= 0.98).all()
    assert straight / count < 0.7, "a path would do without"


def test_detector_finds_nothing_in_grey_noise() -> None:
    noise = np.random.default_rng(9).integers(0, 60, (17, 64, 64, 1), dtype=np.uint8)
    assert detect(np.broadcast_to(noise, (17, 64, 64, 3))) == (UNKNOWN, UNKNOWN, UNKNOWN)


def test_detector_finds_no_direction_in_a_still_picture() -> None:
    attributes, clip = rendered(0)
    found = detect(np.repeat(clip[:1], 17, axis=0))
    assert found == (attributes.shape, attributes.colour, UNKNOWN)


def perfect_answers(count: int) -> list[evaluation.Answer]:
    """The answers of a model that does exactly what the prompts say."""
    by_prompt = {case.prompt: case for case in evaluation.cases(count)}

    def generate(prompt: str, seed: int) -> NDArray[np.uint8]:
        return scenes.render(scenes.random_scene(np.random.default_rng(seed), by_prompt[prompt].attributes))

    return list(evaluation.answer(generate, evaluation.cases(count)))


def test_a_perfect_model_passes_and_shuffled_prompts_do_not() -> None:
    rows = evaluate_tiny_wan.report(perfect_answers(evaluate_tiny_wan.PAIRS))
    assert min(rows["all"].values()) >= 0.98
    assert max(rows["shuffled"].values()) <= 0.40
    assert evaluate_tiny_wan.misses(rows) == []


def test_a_model_that_ignores_its_prompt_is_refused() -> None:
    _, clip = rendered(0)
    answers = list(evaluation.answer(lambda prompt, seed: clip, evaluation.cases(48)))
    missed = evaluate_tiny_wan.misses(evaluate_tiny_wan.report(answers))
    assert {sentence.split()[0] for sentence in missed} == {"shape", "colour", "direction"}
    assert all("less than" in sentence for sentence in missed)
