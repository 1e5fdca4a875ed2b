"""What a prompt names in either language, and what share of that a clip of any size shows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scripts.tiny_wan import captions, scenes
from wanc.report.detectors.drawn_shapes import COLOURS, DIRECTIONS, REACH, Attributes, coverage, pixel_centres
from wanc.report.detectors.moving_shapes import agreement, detect
from wanc.report.detectors.shape_words import named

SHOWN = Attributes("circle", "red", "left")


def drawn(attributes: Attributes, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """As `scenes.render` draws, with the size of everything by the smaller side."""
    random, scale = np.random.default_rng(seed), min(height, width) / scenes.SIZE
    radius, speed = (random.uniform(*bounds) * scale for bounds in (scenes.RADIUS_RANGE, scenes.SPEED_RANGE))
    time, reach = np.arange(scenes.FRAMES, dtype=np.float32) * np.float32(speed), radius * REACH[attributes.shape] + 1
    centres: list[NDArray[np.float32]] = []
    for step, size in zip(DIRECTIONS[attributes.direction], (width, height), strict=True):
        travel = step * float(time[-1])
        start = random.uniform(reach - min(travel, 0.0), size - reach - max(travel, 0.0))
        centres.append(np.float32(start) + step * time)
    x, y = centres
    alpha = coverage(attributes.shape, x, y, radius, pixel_centres(width), pixel_centres(height))[..., None]
    return np.rint(alpha * np.asarray(COLOURS[attributes.colour]) + (1 - alpha) * 30.0).astype(np.uint8)


@pytest.mark.parametrize("language", captions.LANGUAGES)
def test_every_caption_names_its_attributes_and_nothing_else(language: str) -> None:
    """However it is spelt; all sentences that tiny-wan was trained on."""
    for attributes in scenes.ALL_COMBINATIONS:
        for template in range(len(captions.TEMPLATES[language])):
            for sentence in captions.spellings(captions.caption(attributes, language, template)):
                assert named(sentence) == {*attributes}, sentence
                assert named(sentence.upper()) == {*attributes}, sentence


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("A RED Circle moves LEFTWARDS", {"red", "circle", "left"}),
        ("Something red crosses a square", {"red", "square"}),
        ("The tired acrobats fall upon a bluebell", set[str]()),
        ("在桌上有一个红色的杯子", {"red"}),
        ("朝下移动的十字形", {"down", "cross"}),
        ("一个red的正方形", {"red", "square"}),
        ("A blue circle and a red one", {"blue", "red", "circle"}),
        ("", set[str]()),
    ],
)
def test_what_a_prompt_names(prompt: str, expected: set[str]) -> None:
    assert named(prompt) == expected


@pytest.mark.parametrize(
    ("prompt", "share"),
    [
        ("A red circle moves to the left.", 1.0),
        ("一个红色的圆形向左移动。", 1.0),
        ("A green circle moves to the left.", 2 / 3),
        ("一个红色的圆形向右移动。", 2 / 3),
        ("A green circle moves to the right.", 1 / 3),
        ("A green square moves down.", 0.0),
        ("Red.", 1.0),
        ("Green.", 0.0),
        ("A cat on a skateboard", None),
    ],
)
def test_agreement_is_the_share_of_what_the_prompt_names(prompt: str, share: float | None) -> None:
    assert agreement(prompt, drawn(SHOWN, 64, 64)) == (None if share is None else pytest.approx(share))


def test_a_clip_that_shows_nothing_agrees_with_nothing() -> None:
    assert agreement("A red circle moves left.", np.full((17, 64, 64, 3), 30, np.uint8)) == 0.0


def test_one_frame_moves_nowhere() -> None:
    assert agreement("A red circle moves left.", drawn(SHOWN, 64, 64)[:1]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 48), (96, 64), (96, 160), (240, 416)])
def test_shapes_of_any_size_are_read(height: int, width: int) -> None:
    chosen = scenes.ALL_COMBINATIONS[:: 8 if height > 200 else 3]
    read = [detect(drawn(attributes, height, width, seed)) for seed, attributes in enumerate(chosen)]
    assert read == list(chosen)
