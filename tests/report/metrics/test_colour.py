"""Colours that differ are found as they were changed, and other damage is not taken for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.report.metrics.colour import colour_shift

from .clips import Damage, blur, brighter, falls, held, moving, noise, paler, real, rises, warmer


def plain(red: int, green: int, blue: int) -> np.ndarray:
    return np.broadcast_to(np.array([red, green, blue], np.uint8), (2, 16, 16, 3))


def test_known_colours_have_known_distances() -> None:
    """From black to white it is 100 in every formula; the others are from tables of L*a*b*."""
    shift = colour_shift(plain(0, 0, 0), plain(255, 255, 255))
    assert (shift.delta_e, shift.brightness, shift.saturation) == pytest.approx((100, 100, 0), abs=0.02)
    shift = colour_shift(plain(255, 255, 255), plain(255, 0, 0))
    assert (shift.brightness, shift.saturation) == pytest.approx((53.24 - 100, 104.55), abs=0.02)


def test_a_shift_grows_with_its_strength() -> None:
    video = real("carphone_pristine.mp4", 2)
    assert rises([colour_shift(video, warmer(video, levels)).delta_e for levels in (0, 4, 8, 16, 32)])
    assert rises([colour_shift(video, brighter(video, levels)).brightness for levels in (-20, -5, 0, 5, 20)])
    assert falls([colour_shift(video, paler(video, share)).saturation for share in (-0.3, 0, 0.3, 0.6, 1)])


@settings(max_examples=25)
@given(colour=st.tuples(*[st.integers(40, 215)] * 3), levels=st.integers(1, 40))
def test_a_colour_is_its_own_and_a_shift_goes_both_ways(colour: tuple[int, int, int], levels: int) -> None:
    one, other = plain(*colour), warmer(plain(*colour), levels)
    assert colour_shift(one, one).delta_e == 0
    there, back = colour_shift(one, other), colour_shift(other, one)
    assert there.delta_e == pytest.approx(back.delta_e) and there.delta_e > 0
    assert (there.saturation, there.brightness) == pytest.approx((-back.saturation, -back.brightness))


def test_a_colour_that_comes_and_goes_does_not_cancel_out() -> None:
    video = np.array(plain(120, 120, 120))
    frames = np.stack([warmer(video[:1], 20)[0], warmer(video[:1], -20)[0]])
    assert colour_shift(video, frames).delta_e > 5


@pytest.mark.parametrize("damage", [noise, blur])
def test_noise_and_blur_hardly_change_a_colour(damage: Damage) -> None:
    video = real("carphone_pristine.mp4", 2)
    shift = colour_shift(video, damage(video, 3))
    assert shift.delta_e < 1 and abs(shift.brightness) < 0.5


def test_slow_motion_hardly_changes_a_colour() -> None:
    video = moving(side=128)
    assert colour_shift(video, held(video, 2)).delta_e < 1
