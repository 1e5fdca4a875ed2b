"""Everything that is measured of a video beside its reference, and what each figure means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wanc.errors import UserError
from wanc.report.metrics.colour import colour_shift
from wanc.report.metrics.ffmpeg import vmaf, xpsnr
from wanc.report.metrics.motion import Movement, direction_difference, flicker_ratio, motion_ratio
from wanc.report.metrics.pictures import IDENTICAL_DB, SMALLEST_SIDE, ms_ssim, psnr, ssim
from wanc.report.metrics.timing import repeated_frames, time_shift_frames


@dataclass(frozen=True)
class VideoMetrics:
    """How far a video is from its reference: the figures of `METRICS`, and how two of them were measured."""

    psnr_db: float
    ssim: float
    ms_ssim: float
    ms_ssim_scales: int
    """At how many scales MS-SSIM was measured: five, or fewer where the pictures are small."""
    xpsnr_db: float
    vmaf: float
    vmaf_enlargement: int
    """To how many pixels a side each pixel was enlarged for VMAF: 1, or more where the pictures are too small."""
    flicker_ratio: float
    motion_ratio: float
    motion_direction_degrees: float
    repeated_frames: int
    time_shift_frames: int
    colour_shift_delta_e: float
    saturation_shift: float
    brightness_shift: float


@dataclass(frozen=True)
class VideoMetric:
    """What a figure of `VideoMetrics` means."""

    unit: str
    better: Literal["higher", "lower", "nearer"]
    """Which way is better; `nearer` to what identical videos get, from either side."""
    identical: float
    """What identical videos get."""
    description: str
    below_identical: float = 0.0
    """By how much identical videos may get less than that."""


METRICS: Mapping[str, VideoMetric] = {
    "psnr_db": VideoMetric("dB", "higher", IDENTICAL_DB, "Mean squared error of all values, on a logarithmic scale."),
    "ssim": VideoMetric("", "higher", 1.0, "Structure alike in windows of 8×8 pixels (Wang et al. 2004)."),
    "ms_ssim": VideoMetric("", "higher", 1.0, "Structure alike at up to five scales (Wang et al. 2003)."),
    "xpsnr_db": VideoMetric(
        "dB", "higher", IDENTICAL_DB, "PSNR in which errors count by how well they are seen (Helmrich et al. 2020)."
    ),
    "vmaf": VideoMetric(
        "", "higher", 100.0, "What people would say of it, learnt from what they said (Li et al. 2016).", 2.6
    ),
    "flicker_ratio": VideoMetric(
        "×", "nearer", 1.0, "Change of brightness that is no motion, as a share of the reference's (Lai et al. 2018)."
    ),
    "motion_ratio": VideoMetric(
        "×", "nearer", 1.0, "Speed as a share of the reference's, by optical flow (Zach et al. 2007)."
    ),
    "motion_direction_degrees": VideoMetric(
        "°", "lower", 0.0, "Angle between the ways in which both move, by optical flow (Zach et al. 2007)."
    ),
    "repeated_frames": VideoMetric(
        "frames", "lower", 0.0, "Frames that repeat the one before although the reference goes on."
    ),
    "time_shift_frames": VideoMetric(
        "frames", "nearer", 0.0, "The lag that explains the video best; below 0 it is early."
    ),
    "colour_shift_delta_e": VideoMetric(
        "ΔE00", "lower", 0.0, "Distance of mean colours, of which 1 is just seen (CIEDE2000, Sharma et al. 2005)."
    ),
    "saturation_shift": VideoMetric("C*", "nearer", 0.0, "Mean chroma above the reference's (CIE 1976)."),
    "brightness_shift": VideoMetric("L*", "nearer", 0.0, "Mean lightness above the reference's (CIE 1976)."),
}
"""By the names of fields of `VideoMetrics`, in the order in which a report shows them."""


def compare(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> VideoMetrics:
    """How far a video is from its reference, both uint8 sRGB [frames, height, width, 3].

    Raises UserError where one of them is no such array, has fewer than two frames or sides below 11 pixels, where their
    shapes differ, and where ffmpeg is missing or fails.
    """
    for name, video in (("the reference", reference), ("the video", frames)):
        _check(name, video)
    if reference.shape != frames.shape:
        raise UserError(
            f"the reference has {_shape(reference)} and the video {_shape(frames)}; only equal ones can be compared",
            hint="make both with the same shape",
        )
    ms_ssim_value, scales = ms_ssim(reference, frames)
    vmaf_value, enlargement = vmaf(reference, frames)
    expected, shown = Movement.of(reference), Movement.of(frames)
    shift = colour_shift(reference, frames)
    return VideoMetrics(
        psnr_db=psnr(reference, frames),
        ssim=ssim(reference, frames),
        ms_ssim=ms_ssim_value,
        ms_ssim_scales=scales,
        xpsnr_db=xpsnr(reference, frames),
        vmaf=vmaf_value,
        vmaf_enlargement=enlargement,
        flicker_ratio=flicker_ratio(expected, shown),
        motion_ratio=motion_ratio(expected, shown),
        motion_direction_degrees=direction_difference(expected, shown),
        repeated_frames=len(repeated_frames(reference, frames)),
        time_shift_frames=time_shift_frames(reference, frames),
        colour_shift_delta_e=shift.delta_e,
        saturation_shift=shift.saturation,
        brightness_shift=shift.brightness,
    )


def _check(name: str, video: NDArray[np.uint8]) -> None:
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3:
        raise UserError(
            f"{name} is {video.dtype} {list(video.shape)}; metrics take uint8 [frames, height, width, 3]",
        )
    count, height, width, _ = video.shape
    if count < 2:
        raise UserError(f"{name} has {count} frames; how it moves takes two or more")
    if min(height, width) < SMALLEST_SIDE:
        raise UserError(f"{name} has {_shape(video)}; metrics take sides of {SMALLEST_SIDE} pixels or more")


def _shape(video: NDArray[np.uint8]) -> str:
    count, height, width, _ = video.shape
    return f"{count} frames of {width}×{height} pixels"
