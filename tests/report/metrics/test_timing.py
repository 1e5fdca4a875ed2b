"""Frames that are shown again, and a video that is late or early, are found and counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.report.metrics.motion import Movement, motion_ratio
from wanc.report.metrics.pictures import psnr
from wanc.report.metrics.timing import repeated_frames, time_shift_frames

from .clips import Damage, Video, blur, brighter, dropped, falls, held, late, moving, noise, real


@settings(max_examples=20, deadline=None)
@given(indices=st.sets(st.integers(1, 16), max_size=6))
def test_the_frames_that_were_dropped_are_found(indices: set[int]) -> None:
    frames = dropped(moving(), *indices)
    assert repeated_frames(moving(), frames) == tuple(sorted(indices))
    assert repeated_frames(moving(), noise(frames, 0.5)) == tuple(sorted(indices)), "as a codec leaves them"


@settings(max_examples=20, deadline=None)
@given(count=st.integers(-8, 8), damage=st.sampled_from([None, noise, blur, brighter]))
def test_how_late_or_early_a_video_is(count: int, damage: Damage | None) -> None:
    """Both are cut from a longer one."""
    video = moving(count=33)
    reference, frames = video[8:25], video[8 - count : 25 - count]
    assert time_shift_frames(reference, damage(frames, 3) if damage else frames) == count


@pytest.mark.parametrize("name", ["bikes.mp4", "carphone_pristine.mp4"])
@pytest.mark.parametrize("count", [-2, 0, 1, 3])
def test_the_same_of_real_videos(name: str, count: int) -> None:
    video = real(name, 15)
    assert time_shift_frames(video[3:13], noise(video[3 - count : 13 - count], 5)) == count


def test_a_cut_frame_leaves_the_rest_early() -> None:
    """Frame 2 is missing, and the last is shown twice to make up for it."""
    frames = np.concatenate([moving()[:2], moving()[3:], moving()[-1:]])
    assert time_shift_frames(moving(), frames) == -1
    assert repeated_frames(moving(), frames) == (16,)


def test_damage_without_a_shift_is_none() -> None:
    for video in (moving(), real("carphone_pristine.mp4", 8), np.repeat(moving(count=1), 8, axis=0)):
        for frames in (video, noise(video, 30), blur(video, 3), brighter(video, 20)):
            assert time_shift_frames(video, frames) == 0
            assert repeated_frames(video, frames) == ()


def test_a_still_reference_has_nothing_to_repeat() -> None:
    still = np.repeat(moving(count=1), 8, axis=0)
    assert repeated_frames(still, still) == repeated_frames(still, noise(still, 3)) == ()
    assert repeated_frames(moving(count=8), still) == tuple(range(1, 8)), "a frozen video"


def test_more_dropped_frames_and_longer_lags_are_worse() -> None:
    fewer = [dropped(moving(), *range(3, 3 + 2 * count, 2)) for count in range(5)]
    assert [len(repeated_frames(moving(), frames)) for frames in fewer] == [0, 1, 2, 3, 4]
    assert falls([psnr(moving(), frames) for frames in fewer])
    lags = [late(moving(), count) for count in range(5)]
    assert [time_shift_frames(moving(), frames) for frames in lags] == [0, 1, 2, 3, 4]
    assert falls([psnr(moving(), frames) for frames in lags])


def as_far(reference: Video, frames: Video) -> Video:
    """The reference under as much noise as gives the PSNR of the frames, within 0.05 dB."""
    weak, strong, wanted = 0.0, 200.0, psnr(reference, frames)
    for _ in range(14):
        middle = (weak + strong) / 2
        weak, strong = (middle, strong) if psnr(reference, noise(reference, middle)) > wanted else (weak, middle)
    return noise(reference, weak)


@pytest.mark.parametrize("times", [2, 3])
def test_slow_motion_is_told_from_noise_of_the_same_psnr(times: int) -> None:
    slow = np.repeat(moving(), times, axis=0)[: len(moving())]
    noisy = as_far(moving(), slow)
    assert psnr(moving(), noisy) == pytest.approx(psnr(moving(), slow), abs=0.05)
    ratios = [motion_ratio(Movement.of(moving()), Movement.of(video)) for video in (slow, noisy)]
    assert ratios[0] == pytest.approx(1 / times, abs=0.03)
    assert len(repeated_frames(moving(), slow)) == sum(index % times > 0 for index in range(17))
    assert repeated_frames(moving(), noisy) == () and time_shift_frames(moving(), noisy) == 0
    assert ratios[1] > ratios[0] + 0.2


@pytest.mark.parametrize("name", ["bikes.mp4", "carphone_pristine.mp4"])
def test_slow_motion_is_found_in_real_videos(name: str) -> None:
    reference = real(name, 12)
    slow = held(reference, 2)
    assert repeated_frames(reference, slow) == (1, 3, 5, 7, 9, 11)
    assert motion_ratio(Movement.of(reference), Movement.of(slow)) == pytest.approx(0.5, abs=0.15)
