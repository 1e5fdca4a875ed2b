"""Reads back from a clip what tiny-wan draws, with plain arithmetic and no trained part: it can judge any model.

The background is grey and every shape is coloured: the chroma of a pixel (largest minus smallest channel) tells how
much of it the shape covers. Colour is the nearest of the palette, direction is the larger component of the movement of
the centre of mass, and shape is the template that fits best at the same centre and area.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wanc.report.detectors.drawn_shapes import COLOURS, DIRECTIONS, SHAPES, Attributes, coverage, pixel_centres
from wanc.report.detectors.shape_words import named

MINIMAL_CHROMA = 40.0  # of 255; a clip that is greyer shows no shape
MINIMAL_TRAVEL = 1 / 16  # of the smaller side, over the clip; a clip that moves less shows no direction
CORE = 0.03  # of a square picture: so much of it at least is well inside of the shape
UNKNOWN = "unknown"


@dataclass(frozen=True)
class ShapeTrack:
    """Where the shape is: `alpha` float32 [frames, height, width] in [0, 1]; `x`, `y`, `area` [frames]."""

    alpha: NDArray[np.float32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    area: NDArray[np.float32]


def detect(frames: NDArray[np.uint8], *, goes_round: bool = False) -> Attributes:
    """The attributes that uint8 [frames, height, width, 3] shows; `unknown` where it shows none.

    In a clip in which a shape `goes_round`, what leaves the picture on one side comes in on the other.
    """
    pixels = frames.astype(np.float32)
    track = _track(pixels)
    if track is None:
        return Attributes(UNKNOWN, UNKNOWN, UNKNOWN)
    middle, path = (_in_the_middle(track), _unrolled(track)) if goes_round else (track, track)
    return Attributes(_shape(middle), _colour(pixels, track), _direction(path))


def agreement(prompt: str, frames: NDArray[np.uint8]) -> float | None:
    """Which share of the shapes, colours and directions that a prompt names a clip shows; None where it names none."""
    expected = named(prompt)
    return len(expected.intersection(detect(frames))) / len(expected) if expected else None


def travel(frames: NDArray[np.uint8]) -> float:
    """How far the shape moves over the clip, in pixels along the straight line; 0 where there is none."""
    track = _track(frames.astype(np.float32))
    return 0.0 if track is None else math.hypot(*_speed(track)) * (len(track.area) - 1)


def _track(pixels: NDArray[np.float32]) -> ShapeTrack | None:
    """Turn chroma into coverage, without the faint noise of the background; None where no shape is to be seen."""
    chroma = pixels.max(axis=-1) - pixels.min(axis=-1)
    # The level inside of the shape: high enough to ignore noise, not so high that one bright pixel decides.
    height, width = chroma.shape[1:]
    inside = float(np.quantile(chroma, 1 - CORE * min(height, width) / max(height, width)))
    if inside < MINIMAL_CHROMA:
        return None
    alpha = np.clip(chroma / inside, 0.0, 1.0)
    alpha = np.where(alpha < 0.25, 0.0, alpha).astype(np.float32)
    area = alpha.sum(axis=(1, 2)) + 1e-6
    x = (alpha.sum(axis=1) * pixel_centres(width)).sum(axis=1) / area
    y = (alpha.sum(axis=2) * pixel_centres(height)).sum(axis=1) / area
    return ShapeTrack(alpha, x, y, area)


def _unrolled(track: ShapeTrack) -> ShapeTrack:
    """The same with centres as if the picture were repeated on all sides: a path without jumps."""
    height, width = track.alpha.shape[1:]
    x, y = _around(track.alpha.sum(axis=1), width), _around(track.alpha.sum(axis=2), height)
    return ShapeTrack(track.alpha, x, y, track.area)


def _around(profile: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Where the mass of [frames, size] is on a circle, in pixels that go on counting where it goes round: [frames]."""
    turns = np.exp(2j * np.pi * pixel_centres(size) / size)
    angles = np.unwrap(np.angle((profile * turns).sum(axis=1)))
    return (angles * size / (2 * np.pi)).astype(np.float32)


def _in_the_middle(track: ShapeTrack) -> ShapeTrack:
    """The same, each frame moved round until the shape is in the middle: no edge parts it there."""
    height, width = track.alpha.shape[1:]
    path = _unrolled(track)
    moves = [np.rint(side / 2 - centre).astype(int) for side, centre in ((height, path.y), (width, path.x))]
    alpha = np.stack([np.roll(frame, move, (0, 1)) for frame, *move in zip(track.alpha, *moves, strict=True)])
    x, y = path.x + moves[1], path.y + moves[0]
    return ShapeTrack(alpha, x.astype(np.float32), y.astype(np.float32), track.area)


def _colour(pixels: NDArray[np.float32], track: ShapeTrack) -> str:
    """The palette colour that is nearest to the mean colour well inside of the shape."""
    core = track.alpha > 0.8
    mean = pixels[core].mean(axis=0)
    names = list(COLOURS)
    distances = [float(np.square(mean - np.asarray(COLOURS[name])).sum()) for name in names]
    return names[int(np.argmin(distances))]


def _speed(track: ShapeTrack) -> tuple[float, float]:
    """Pixels per frame in x and y: a straight line through the centres, fitted and weighted by the area seen."""
    if len(track.area) == 1:
        return 0.0, 0.0
    time = np.arange(len(track.area), dtype=np.float32)
    weight = track.area / track.area.sum()
    offset = time - (weight * time).sum()
    spread = (weight * offset * offset).sum()
    return float((weight * offset * track.x).sum() / spread), float((weight * offset * track.y).sum() / spread)


def _direction(track: ShapeTrack) -> str:
    speed_x, speed_y = _speed(track)
    if max(abs(speed_x), abs(speed_y)) * (len(track.area) - 1) < MINIMAL_TRAVEL * min(track.alpha.shape[1:]):
        return UNKNOWN
    steps = np.asarray(list(DIRECTIONS.values()), dtype=np.float32)
    return list(DIRECTIONS)[int(np.argmax(steps @ np.asarray([speed_x, speed_y], dtype=np.float32)))]


def _shape(track: ShapeTrack) -> str:
    """The shape whose silhouette differs least, drawn in each frame at the centre and with the area that were found."""
    radius = math.sqrt(float(np.median(track.area)) / math.pi)
    rows, columns = map(pixel_centres, track.alpha.shape[1:])
    differences: list[float] = []
    for shape in SHAPES:
        template = coverage(shape, track.x, track.y, radius, columns, rows)
        differences.append(float(np.abs(template - track.alpha).sum()))
    return SHAPES[int(np.argmin(differences))]
