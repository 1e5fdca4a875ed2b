"""The world of the tiny model: one coloured shape that moves in one direction over a dark background.

Everything that a clip shows is held by :class:`Scene`, so a clip is a pure function of a scene, and a scene is a pure
function of a random generator. The combinations of (shape, colour, direction) are split into training and held-out
ones; the model never sees a held-out combination, in no language.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FRAMES = 17
SIZE = 64

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

RADIUS_RANGE = (7.5, 10.5)  # pixels, of the circle with the same area
SPEED_RANGE = (1.1, 1.75)  # pixels per frame
BACKGROUND_RANGE = (22.0, 42.0)  # grey level, of 255

_TRIANGLE_REACH = math.sqrt(4 * math.pi / math.sqrt(3)) / math.sqrt(3)  # centre to corner, area pi
_SQUARE_HALF = math.sqrt(math.pi) / 2
_CROSS_ARM = 0.36  # width of an arm over the width of the cross
_CROSS_HALF = math.sqrt(math.pi / (4 * (2 * _CROSS_ARM - _CROSS_ARM**2)))
_REACH = {"circle": 1.0, "square": _SQUARE_HALF, "triangle": _TRIANGLE_REACH, "cross": _CROSS_HALF}


class Attributes(NamedTuple):
    """What a caption tells and the detector finds."""

    shape: str
    colour: str
    direction: str


@dataclass(frozen=True)
class Scene:
    """One clip: the attributes plus everything that a caption leaves open."""

    attributes: Attributes
    radius: float
    speed: float
    start: tuple[float, float]
    background: float


def is_held_out(attributes: Attributes) -> bool:
    """Hold out one colour for each pair of (shape, direction): 16 of 96 combinations, and no value suffers."""
    shape = SHAPES.index(attributes.shape)
    direction = list(DIRECTIONS).index(attributes.direction)
    return list(COLOURS).index(attributes.colour) == (len(DIRECTIONS) * shape + direction) % len(COLOURS)


ALL_COMBINATIONS = tuple(Attributes(s, c, d) for s in SHAPES for c in COLOURS for d in DIRECTIONS)
HELD_OUT = tuple(a for a in ALL_COMBINATIONS if is_held_out(a))
TRAINING = tuple(a for a in ALL_COMBINATIONS if not is_held_out(a))


def random_scene(random: np.random.Generator, attributes: Attributes) -> Scene:
    """Draw size, speed, start and background so that the whole shape stays inside of every frame."""
    radius = random.uniform(*RADIUS_RANGE)
    speed = random.uniform(*SPEED_RANGE)
    reach = radius * _REACH[attributes.shape] + 1.0
    start = []
    for step in DIRECTIONS[attributes.direction]:
        travel = step * speed * (FRAMES - 1)
        start.append(random.uniform(reach - min(travel, 0.0), SIZE - reach - max(travel, 0.0)))
    return Scene(attributes, radius, speed, (start[0], start[1]), random.uniform(*BACKGROUND_RANGE))


def coverage(
    shape: str,
    centre_x: NDArray[np.float32],
    centre_y: NDArray[np.float32],
    radius: float,
    left: int = 0,
    top: int = 0,
    size: int = SIZE,
) -> NDArray[np.float32]:
    """How much of each pixel the shape covers: [frames, size, size] in [0, 1], smooth over about 1.5 pixels.

    ``centre_x`` and ``centre_y`` are [frames], the centre of mass in pixels of the whole picture; ``left``, ``top`` and
    ``size`` choose the window that is rendered. ``radius`` is that of the circle with the same area.
    """
    grid = np.arange(size, dtype=np.float32) + 0.5
    x = (grid + left)[None, None, :] - centre_x[:, None, None]
    y = (grid + top)[None, :, None] - centre_y[:, None, None]
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


def render(
    scene: Scene, first_frame: int = 0, frames: int = FRAMES, left: int = 0, top: int = 0, size: int = SIZE
) -> NDArray[np.uint8]:
    """Render a window of the clip: uint8 [frames, size, size, 3]."""
    step_x, step_y = DIRECTIONS[scene.attributes.direction]
    time = np.arange(first_frame, first_frame + frames, dtype=np.float32) * np.float32(scene.speed)
    centre_x, centre_y = scene.start[0] + step_x * time, scene.start[1] + step_y * time
    alpha = coverage(scene.attributes.shape, centre_x, centre_y, scene.radius, left, top, size)[..., None]
    colour = np.asarray(COLOURS[scene.attributes.colour], dtype=np.float32)
    picture = alpha * colour + (1 - alpha) * np.float32(scene.background)
    return np.rint(picture).astype(np.uint8)
