"""The world of the tiny model: one coloured shape that moves in one direction over a dark background.

Everything that a clip shows is held by :class:`Scene`, so a clip is a pure function of a scene, and a scene is a pure
function of a random generator. The combinations of (shape, colour, direction) are split into training and held-out
ones; the model never sees a held-out combination, in no language.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wanc.report.detectors.drawn_shapes import (
    COLOURS,
    DIRECTIONS,
    REACH,
    SHAPES,
    Attributes,
    coverage,
    pixel_centres,
)

FRAMES = 17
SIZE = 64

RADIUS_RANGE = (7.5, 10.5)  # pixels, of the circle with the same area
SPEED_RANGE = (1.1, 1.75)  # pixels per frame
BACKGROUND_RANGE = (22.0, 42.0)  # grey level, of 255


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
    reach = radius * REACH[attributes.shape] + 1.0
    start = []
    for step in DIRECTIONS[attributes.direction]:
        travel = step * speed * (FRAMES - 1)
        start.append(random.uniform(reach - min(travel, 0.0), SIZE - reach - max(travel, 0.0)))
    return Scene(attributes, radius, speed, (start[0], start[1]), random.uniform(*BACKGROUND_RANGE))


def render(
    scene: Scene, first_frame: int = 0, frames: int = FRAMES, left: int = 0, top: int = 0, size: int = SIZE
) -> NDArray[np.uint8]:
    """Render a window of the clip: uint8 [frames, size, size, 3]."""
    columns, rows = pixel_centres(size, left), pixel_centres(size, top)
    centres = _centres(scene, np.arange(first_frame, first_frame + frames))
    return _painted(scene, coverage(scene.attributes.shape, *centres, scene.radius, columns, rows))


def render_round(scene: Scene, frames: int) -> NDArray[np.uint8]:
    """A clip of any length: what leaves the picture on one side comes in on the other. uint8 [frames, 64, 64, 3]."""
    pixels = pixel_centres(SIZE)
    centre_x, centre_y = (centre % SIZE for centre in _centres(scene, np.arange(frames)))
    shown = [
        coverage(scene.attributes.shape, centre_x + right, centre_y + down, scene.radius, pixels, pixels)
        for right in (-SIZE, 0, SIZE)
        for down in (-SIZE, 0, SIZE)
    ]
    return _painted(scene, np.maximum.reduce(shown))


def _centres(scene: Scene, frames: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the shape is in these frames, in pixels from the left and from the top."""
    step_x, step_y = DIRECTIONS[scene.attributes.direction]
    time = frames.astype(np.float32) * np.float32(scene.speed)
    return scene.start[0] + step_x * time, scene.start[1] + step_y * time


def _painted(scene: Scene, covered: NDArray[np.float32]) -> NDArray[np.uint8]:
    """uint8 [frames, rows, columns, 3] of how much of each pixel the shape covers."""
    alpha = covered[..., None]
    colour = np.asarray(COLOURS[scene.attributes.colour], dtype=np.float32)
    picture = alpha * colour + (1 - alpha) * np.float32(scene.background)
    return np.rint(picture).astype(np.uint8)
