"""What tiny-wan draws: one coloured shape that moves in one direction, and how much of each pixel it covers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "green": (40, 185, 60),
    "blue": (50, 85, 235),
    "yellow": (235, 210, 45),
    "purple": (185, 50, 205),
    "cyan": (50, 205, 215),
}
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

_TRIANGLE_REACH = math.sqrt(4 * math.pi / math.sqrt(3)) / math.sqrt(3)  # centre to corner, area pi
_SQUARE_HALF = math.sqrt(math.pi) / 2
_CROSS_ARM = 0.36  # width of an arm over the width of the cross
_CROSS_HALF = math.sqrt(math.pi / (4 * (2 * _CROSS_ARM - _CROSS_ARM**2)))
REACH = {"circle": 1.0, "square": _SQUARE_HALF, "triangle": _TRIANGLE_REACH, "cross": _CROSS_HALF}
"""By shape, how far it goes from its centre along an axis, over the radius of the circle with the same area."""


class Attributes(NamedTuple):
    """What a caption tells and the detector finds."""

    shape: str
    colour: str
    direction: str


def pixel_centres(count: int, first: int = 0) -> NDArray[np.float32]:
    """Where so many pixels lie along an axis, float32 [count], the first of them being number `first`."""
    return np.arange(first, first + count, dtype=np.float32) + 0.5


def coverage(
    shape: str,
    centre_x: NDArray[np.float32],
    centre_y: NDArray[np.float32],
    radius: float,
    columns: NDArray[np.float32],
    rows: NDArray[np.float32],
) -> NDArray[np.float32]:
    """How much of each pixel the shape covers: [frames, rows, columns] in [0, 1], smooth over about 1.5 pixels.

    `centre_x` and `centre_y` are [frames], the centre of mass in pixels; `columns` and `rows` are where the pixels lie.
    `radius` is that of the circle with the same area.
    """
    x = columns[None, None, :] - centre_x[:, None, None]
    y = rows[None, :, None] - centre_y[:, None, None]
    if shape == "circle":
        distance = np.sqrt(x * x + y * y) - radius
    elif shape == "square":
        distance = np.maximum(np.abs(x), np.abs(y)) - radius * _SQUARE_HALF
    elif shape == "triangle":
        slanted = np.abs(x) * (math.sqrt(3) / 2) - y / 2
        distance = np.maximum(slanted, y) - radius * _TRIANGLE_REACH / 2
    else:
        half = radius * _CROSS_HALF
        x, y = np.abs(x), np.abs(y)
        distance = np.maximum(np.minimum(x, y) - half * _CROSS_ARM, np.maximum(x, y) - half)
    edge = np.clip(0.5 - distance / 1.5, 0.0, 1.0)
    return (edge * edge * (3 - 2 * edge)).astype(np.float32)
