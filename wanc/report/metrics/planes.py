"""The planes of a picture that metrics look at besides red, green and blue: brightness, and what video files hold.

Both follow ITU-R BT.709, which is also what the videos that wanc writes are marked with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RED, GREEN, BLUE = 0.2126, 0.7152, 0.0722
"""How much of a picture's brightness each colour is: BT.709, section 3.2."""

LARGEST_SIDE = 128
"""Of pictures in which movement is looked for, in pixels. Larger ones take longer and show no other movement."""


def luma(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Brightness, 0 to 255, not rounded: float32 [frames, height, width] of uint8 RGB [frames, height, width, 3]."""
    return frames @ np.array([RED, GREEN, BLUE], np.float32)


def small_luma(frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], int]:
    """Brightness in pictures whose sides are at most LARGEST_SIDE, and how many pixels became one along a side.

    A pixel is the mean of a square of them; rows and columns that fill no square are left out.
    """
    pictures = luma(frames)
    count, height, width = pictures.shape
    factor = -(-max(height, width) // LARGEST_SIDE)
    rows, columns = max(1, height // factor), max(1, width // factor)
    squares = pictures[:, : rows * factor, : columns * factor].reshape(count, rows, -1, columns, factor)
    return squares.mean(axis=(2, 4)), factor


def ycbcr(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Brightness and the two colour differences in the narrow range, as video files hold them, all at full size.

    uint8 [frames, 3, height, width] of uint8 RGB [frames, height, width, 3]: what ffmpeg calls yuv444p. Y is 16 to 235,
    Cb and Cr are 16 to 240.
    """
    planes = np.empty((len(frames), 3, *frames.shape[1:3]), np.uint8)
    for frame, (y, cb, cr) in zip(frames, planes, strict=True):
        brightness = luma(frame[None])[0]
        y[:] = np.rint(16 + 219 / 255 * brightness)
        cb[:] = np.rint(128 + 224 / 255 * (frame[..., 2] - brightness) / (2 * (1 - BLUE)))
        cr[:] = np.rint(128 + 224 / 255 * (frame[..., 0] - brightness) / (2 * (1 - RED)))
    return planes
