"""Movement is found as it was made, in pixels a frame, and flicker is what changes besides."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.report.metrics.motion import Movement, direction_difference, flicker_ratio, motion_ratio

from .clips import Damage, brighter, flickering, held, late, moving, noise, paler, real, rises, warmer

SPEEDS = st.integers(-3, 3)


@settings(max_examples=10, deadline=None)
@given(down=SPEEDS, right=SPEEDS)
def test_movement_is_found_as_it_was_made(down: int, right: int) -> None:
    movement = Movement.of(moving(down, right, count=4))
    assert movement.vectors == pytest.approx(np.tile([down, right], (3, 1)), abs=0.3)
    assert movement.speeds == pytest.approx([math.hypot(down, right)] * 3, abs=0.3)


@settings(max_examples=10, deadline=None)
@given(one=st.tuples(SPEEDS, SPEEDS), other=st.tuples(SPEEDS, SPEEDS))
def test_the_angle_between_two_movements(one: tuple[int, int], other: tuple[int, int]) -> None:
    found = direction_difference(*(Movement.of(moving(*speed, count=4)) for speed in (one, other)))
    if one == (0, 0) or other == (0, 0):
        assert found == 0
    else:
        angle = abs(math.degrees(math.atan2(*one) - math.atan2(*other)))
        assert found == pytest.approx(min(angle, 360 - angle), abs=8)


def test_movement_in_a_large_picture_is_in_its_own_pixels() -> None:
    movement = Movement.of(moving(4, -8, count=3, side=600))
    assert movement.vectors == pytest.approx(np.tile([4, -8], (2, 1)), abs=0.4)


def test_a_part_that_moves_is_not_lost_in_a_flat_picture() -> None:
    frames = np.zeros((5, 96, 96, 3), np.uint8)
    for index, frame in enumerate(frames):
        frame[40:56, 20 + 2 * index : 36 + 2 * index] = 200
    assert Movement.of(frames).vectors[:, 1] == pytest.approx([2] * 4, abs=0.5)


def test_what_does_not_move_has_no_movement_and_no_flicker() -> None:
    for still in (moving(0, 0, count=3), np.zeros((3, 64, 64, 3), np.uint8)):
        movement = Movement.of(still)
        assert not movement.vectors.any() and not movement.speeds.any() and not movement.flickers.any()
        assert motion_ratio(movement, movement) == flicker_ratio(movement, movement) == 1


@pytest.mark.parametrize("name", ["bikes.mp4", "carphone_pristine.mp4"])
def test_a_video_backwards_moves_the_other_way(name: str) -> None:
    forth, back = Movement.of(real(name, 5)), Movement.of(real(name, 5)[::-1])
    assert direction_difference(forth, Movement(back.vectors[::-1], back.speeds, back.flickers)) > 150
    assert motion_ratio(forth, back) == pytest.approx(1, abs=0.2)


def test_slow_motion_moves_as_much_less() -> None:
    video = moving(count=9)
    reference = Movement.of(video)
    ratios = [motion_ratio(reference, Movement.of(held(video, times))) for times in (1, 2, 4, 9)]
    assert ratios == pytest.approx([1, 1 / 2, 1 / 4, 0], abs=0.02)


@pytest.mark.parametrize("strengthen", [warmer, brighter])
@pytest.mark.parametrize("video", ["made", "real"])
def test_colour_and_brightness_are_no_motion(strengthen: Damage, video: str) -> None:
    frames = moving(count=5) if video == "made" else real("carphone_pristine.mp4", 5)
    reference = Movement.of(frames)
    for shift in (5, 20):
        movement = Movement.of(strengthen(frames, shift))
        assert motion_ratio(reference, movement) == pytest.approx(1, abs=0.06)
        assert direction_difference(reference, movement) < 5
        assert flicker_ratio(reference, movement) == pytest.approx(1, abs=0.06)


def test_a_paler_video_moves_alike() -> None:
    frames = real("carphone_pristine.mp4", 5)
    assert motion_ratio(Movement.of(frames), Movement.of(paler(frames, 0.8))) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("video", ["made", "real"])
def test_flicker_grows_and_is_no_motion(video: str) -> None:
    frames = moving(count=5) if video == "made" else real("carphone_pristine.mp4", 5)
    reference = Movement.of(frames)
    flickers = [Movement.of(flickering(frames, levels)) for levels in (0, 4, 8, 16)]
    assert rises([flicker_ratio(reference, movement) for movement in flickers])
    assert [motion_ratio(reference, movement) for movement in flickers] == pytest.approx([1] * 4, abs=0.05)
    assert [direction_difference(reference, movement) for movement in flickers] == pytest.approx([0] * 4, abs=5)


def test_flicker_is_in_grey_levels() -> None:
    still = np.repeat(moving(count=1), 6, axis=0) // 2 + 64
    assert Movement.of(flickering(still, 10)).flickers == pytest.approx([10] * 5, abs=0.2)


def test_noise_that_differs_from_frame_to_frame_flickers() -> None:
    reference = Movement.of(moving(count=5))
    assert rises([flicker_ratio(reference, Movement.of(noise(moving(count=5), level))) for level in (0, 4, 8, 16)])


def test_a_late_video_moves_as_its_reference_where_it_moves() -> None:
    assert direction_difference(Movement.of(moving()), Movement.of(late(moving(), 3))) < 2
