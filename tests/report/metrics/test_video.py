"""All figures of a video at once: perfect where it is its reference, and with a meaning for each."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from wanc.errors import UserError
from wanc.report.metrics.video import METRICS, VideoMetrics, compare

from .clips import REAL, TIME_DAMAGES, Video, falls, held, moving, noise, real, rises, warmer

HOW = {"ms_ssim_scales", "vmaf_enlargement"}


def test_every_figure_has_a_meaning() -> None:
    fields = [field.name for field in dataclasses.fields(VideoMetrics)]
    assert [name for name in fields if name not in HOW] == list(METRICS)
    assert all(metric.description.endswith(".") and "\n" not in metric.description for metric in METRICS.values())


def random_video() -> Video:
    return np.random.default_rng(4).integers(0, 256, (3, 48, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", [*REAL, "moving", "random", "black"])
def test_identical_videos_are_perfect(name: str) -> None:
    made = {"moving": moving, "random": random_video, "black": lambda: np.zeros((3, 64, 64, 3), np.uint8)}
    video = made[name]() if name in made else real(name, 2)
    figures = compare(video, video.copy())
    for field, metric in METRICS.items():
        value = getattr(figures, field)
        assert metric.identical - metric.below_identical <= value <= metric.identical, field


def test_a_distorted_clip_is_worse_in_every_way() -> None:
    """But in what happens when: it is the same scene at the same time."""
    reference, frames = real("carphone_pristine.mp4", 5), real("carphone_distorted.mp4", 5)
    figures, perfect = compare(reference, frames), compare(reference, reference)
    assert (figures.repeated_frames, figures.time_shift_frames) == (0, 0)
    for field, metric in METRICS.items():
        if field not in ("repeated_frames", "time_shift_frames"):
            distance, none = (abs(getattr(each, field) - metric.identical) for each in (figures, perfect))
            assert distance > none, field


@pytest.mark.parametrize("damage", TIME_DAMAGES)
def test_pictures_at_the_wrong_time_are_worse_in_every_way(damage: str) -> None:
    """But in colour, which hardly changes in the texture that moves, and in speed, where nothing slows down."""
    spoil, strengths = TIME_DAMAGES[damage]
    reference = moving(count=10)
    found = [compare(reference, video) for video in (reference, *(spoil(reference, value) for value in strengths))]
    for field in ("psnr_db", "ssim", "ms_ssim", "xpsnr_db", "vmaf"):
        assert falls([getattr(figures, field) for figures in found]), field
    ratios = [figures.motion_ratio for figures in found]
    # Behind a dropped frame the picture moves as far at once as it should have in two.
    assert ratios == pytest.approx([1] * len(found), abs=0.05) if damage == "dropped frames" else falls(ratios)
    assert rises([figures.repeated_frames for figures in found])
    assert max(figures.colour_shift_delta_e for figures in found) < 2


def test_figures_are_plain_numbers() -> None:
    """A report writes them as JSON, which has no infinity."""
    figures = dataclasses.asdict(compare(moving(count=3), noise(moving(count=3), 5)))
    assert {type(value) for value in figures.values()} <= {int, float}
    assert all(math.isfinite(value) for value in figures.values())


@pytest.mark.parametrize(("side", "count", "scales", "enlargement"), [(64, 17, 3, 1), (16, 17, 1, 3), (11, 2, 1, 3)])
def test_small_videos_say_how_they_were_measured(side: int, count: int, scales: int, enlargement: int) -> None:
    video = moving(side=side, count=count)
    figures = compare(video, warmer(noise(video, 4), 10))
    assert (figures.ms_ssim_scales, figures.vmaf_enlargement) == (scales, enlargement)
    assert all(math.isfinite(value) for value in dataclasses.astuple(figures))


def test_slow_motion_in_one_comparison() -> None:
    figures = compare(moving(), held(moving(), 2))
    assert (figures.repeated_frames, figures.motion_ratio) == (8, pytest.approx(0.5, abs=0.02))


# Faults


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (moving()[:-1], "the reference has 17 frames of 64×64 pixels and the video 16 frames of 64×64 pixels"),
        (moving()[:, :-2], "the reference has 17 frames of 64×64 pixels and the video 17 frames of 64×62 pixels"),
        (moving()[:0], "the video has 0 frames; how it moves takes two or more"),
        (moving()[:1], "the video has 1 frames; how it moves takes two or more"),
        (moving()[:, :10], "the video has 17 frames of 64×10 pixels; metrics take sides of 11 pixels or more"),
        (moving() / np.float32(255), "the video is float32 [17, 64, 64, 3]; metrics take uint8"),
        (moving()[..., 0], "the video is uint8 [17, 64, 64]; metrics take uint8 [frames, height, width, 3]"),
        (moving().repeat(2, axis=3)[..., :4], "the video is uint8 [17, 64, 64, 4]; metrics take uint8"),
    ],
)
def test_what_cannot_be_compared_says_why(frames: Video, said: str) -> None:
    with pytest.raises(UserError) as caught:
        compare(moving(), frames)
    assert str(caught.value).startswith(said)
    with pytest.raises(UserError, match="the reference"):
        compare(frames, moving())
