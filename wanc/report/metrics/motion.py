"""How a video moves, and how it flickers: by the optical flow from each frame to the next.

The flow is that of Zach, Pock and Bischof, "A duality based approach for realtime TV-L1 optical flow", Pattern
Recognition (DAGM), 2007, as scikit-image computes it. It holds under noise and where bright parts are cut off at white;
flows by least squares run away there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wanc.report.metrics.planes import small_luma

STILL_PIXELS = 0.02
"""Movement from frame to frame that is none: about what other rounding to whole grey levels looks like."""

STEADY_LEVELS = 0.25
"""The same of brightness, in grey levels of 255."""


@dataclass(frozen=True)
class Movement:
    """What happens between consecutive frames of a video, for each pair of them."""

    vectors: NDArray[np.float64]
    """[pairs, 2]: how far the picture moves down and to the right, in pixels of the video."""
    speeds: NDArray[np.float64]
    """[pairs]: how far its parts move on average, wherever each goes, in pixels of the video."""
    flickers: NDArray[np.float64]
    """[pairs]: how much brightness changes that does not move, in grey levels of 255."""

    @classmethod
    def of(cls, frames: NDArray[np.uint8]) -> Movement:
        """Of two or more frames, uint8 [frames, height, width, 3]; large ones are looked at in a smaller size."""
        pictures, factor = small_luma(frames)
        vectors, speeds, flickers = zip(*(_between(before, after) for before, after in pairwise(pictures)), strict=True)
        return cls(factor * np.array(vectors, np.float64), factor * np.array(speeds), np.array(flickers))


def motion_ratio(reference: Movement, movement: Movement) -> float:
    """How fast a video moves, as a share of how fast its reference does: 0.5 at half the speed."""
    return _ratio(movement.speeds, reference.speeds, STILL_PIXELS)


def flicker_ratio(reference: Movement, movement: Movement) -> float:
    """How much a video flickers, as a share of how much its reference does.

    Flicker is the mean difference between a frame and the next one, brought back along the flow: the warping error of
    Lai, Huang, Wang, Shechtman, Yumer and Yang, "Learning blind video temporal consistency", ECCV 2018, but in absolute
    differences, and also where something comes into sight.
    """
    return _ratio(movement.flickers, reference.flickers, STEADY_LEVELS)


def direction_difference(reference: Movement, movement: Movement) -> float:
    """The angle between the ways in which two videos move at the same time, 0 to 180 degrees.

    Pairs of frames count by how far both videos move as a whole. Where one of them does not, there is no angle to speak
    of, and it is 0: `motion_ratio` tells such videos apart.
    """
    (down, right), (other_down, other_right) = reference.vectors.T, movement.vectors.T
    along = down * other_down + right * other_right
    across = np.abs(down * other_right - right * other_down)
    weights = np.hypot(along, across)
    if weights.mean() < STILL_PIXELS**2:
        return 0.0
    return float(np.average(np.degrees(np.arctan2(across, along)), weights=weights))


def _between(before: NDArray[np.float32], after: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, float]:
    """The mean vector, the mean speed and the flicker from one picture to the next, float32 [height, width]."""
    from skimage.registration import optical_flow_tvl1
    from skimage.transform import warp

    flow = optical_flow_tvl1(_standardised(before), _standardised(after))
    places = np.indices(before.shape) + flow
    flicker = np.abs(warp(after, places, mode="edge", preserve_range=True) - before).mean()
    # Nobody sees a flat part move, and its flow is chance: a place counts by how steep the picture is there.
    weights = np.square(np.gradient(before)).sum(axis=0)
    if weights.sum() == 0:
        return np.zeros(2), 0.0, float(flicker)
    vector = np.array([np.average(part, weights=weights) for part in flow])
    return vector, float(np.average(np.hypot(*flow), weights=weights)), float(flicker)


def _standardised(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of mean 0 and deviation 1, so that a picture that only gets brighter or paler does not move."""
    return (picture - picture.mean()) / max(float(picture.std()), 1.0)


def _ratio(values: NDArray[np.float64], references: NDArray[np.float64], small: float) -> float:
    """Of means, with what is nothing added to both: a number also where the reference has none."""
    return float((values.mean() + small) / (references.mean() + small))
