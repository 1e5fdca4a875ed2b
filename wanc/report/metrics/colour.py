"""How far the colours of a video are from those of its reference, in the space CIE L*a*b* (CIE 15:2004, D65)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ColourShift:
    """How the colours of a video differ from its reference's, on average of its frames."""

    delta_e: float
    """The distance CIEDE2000 between the mean colours of two frames; 1 is about what an eye can tell apart.

    Sharma, Wu and Dalal, "The CIEDE2000 color-difference formula", Color Research and Application 30, 2005.
    """
    saturation: float
    """How much more chroma C* its pixels have; below 0 it is paler."""
    brightness: float
    """How much more lightness L* its pixels have, which is 0 for black and 100 for white; below 0 it is darker."""


def colour_shift(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> ColourShift:
    """Of uint8 sRGB [frames, height, width, 3] both."""
    from skimage.color import deltaE_ciede2000

    expected, expected_chroma = _mean_colours(reference)
    shown, shown_chroma = _mean_colours(frames)
    return ColourShift(
        delta_e=float(deltaE_ciede2000(expected, shown).mean()),
        saturation=float((shown_chroma - expected_chroma).mean()),
        brightness=float((shown - expected)[:, 0].mean()),
    )


def _mean_colours(frames: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each frame the mean L*, a* and b* of its pixels, [frames, 3], and their mean chroma, [frames]."""
    from skimage.color import rgb2lab

    colours, chroma = np.empty((len(frames), 3)), np.empty(len(frames))
    for index, frame in enumerate(frames):  # one by one, since a frame takes eight times its bytes
        lab = rgb2lab(frame)
        colours[index] = lab.mean(axis=(0, 1))
        chroma[index] = np.hypot(lab[..., 1], lab[..., 2]).mean()
    return colours, chroma
