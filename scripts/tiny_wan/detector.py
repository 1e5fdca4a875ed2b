"""Reads the attributes back from a clip, with plain arithmetic and no trained part, so that it can judge any model.

The background is grey and every shape is coloured: the chroma of a pixel (largest minus smallest channel) tells how
much of it the shape covers. Colour is the nearest of the palette, direction is the larger component of the movement of
the centre of mass, and shape is the template that fits best at the same centre and area.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scenes import COLOURS, DIRECTIONS, SHAPES, Attributes, coverage

MINIMAL_CHROMA = 40.0  # of 255; a clip that is greyer shows no shape
MINIMAL_TRAVEL = 4.0  # pixels over the clip; a clip that moves less shows no direction
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Track:
    """Where the shape is: ``alpha`` float32 [frames, height, width] in [0, 1]; ``x``, ``y``, ``area`` [frames]."""

    alpha: NDArray[np.float32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    area: NDArray[np.float32]


def detect(frames: NDArray[np.uint8]) -> Attributes:
    """The attributes that uint8 [frames, height, width, 3] shows; ``unknown`` where it shows none."""
    pixels = frames.astype(np.float32)
    track = _track(pixels)
    if track is None:
        return Attributes(UNKNOWN, UNKNOWN, UNKNOWN)
    return Attributes(_shape(track), _colour(pixels, track), _direction(track))


def travel(frames: NDArray[np.uint8]) -> float:
    """How far the shape moves over the clip, in pixels along the straight line; 0 where there is none."""
    track = _track(frames.astype(np.float32))
    return 0.0 if track is None else math.hypot(*_speed(track)) * (len(track.area) - 1)


def _track(pixels: NDArray[np.float32]) -> Track | None:
    """Turn chroma into coverage, without the faint noise of the background; None where no shape is to be seen."""
    chroma = pixels.max(axis=-1) - pixels.min(axis=-1)
    # The level inside of the shape: high enough to ignore noise, not so high that one bright pixel decides.
    inside = float(np.quantile(chroma, 0.97))
    if inside < MINIMAL_CHROMA:
        return None
    alpha = np.clip(chroma / inside, 0.0, 1.0)
    alpha = np.where(alpha < 0.25, 0.0, alpha).astype(np.float32)
    area = alpha.sum(axis=(1, 2)) + 1e-6
    grid = np.arange(alpha.shape[-1], dtype=np.float32) + 0.5
    rows = np.arange(alpha.shape[-2], dtype=np.float32) + 0.5
    x = (alpha.sum(axis=1) * grid).sum(axis=1) / area
    y = (alpha.sum(axis=2) * rows).sum(axis=1) / area
    return Track(alpha, x, y, area)


def _colour(pixels: NDArray[np.float32], track: Track) -> str:
    """The palette colour that is nearest to the mean colour well inside of the shape."""
    core = track.alpha > 0.8
    mean = pixels[core].mean(axis=0)
    names = list(COLOURS)
    distances = [float(np.square(mean - np.asarray(COLOURS[name])).sum()) for name in names]
    return names[int(np.argmin(distances))]


def _speed(track: Track) -> tuple[float, float]:
    """Pixels per frame in x and y: a straight line through the centres, fitted and weighted by the area seen."""
    time = np.arange(len(track.area), dtype=np.float32)
    weight = track.area / track.area.sum()
    offset = time - (weight * time).sum()
    spread = (weight * offset * offset).sum()
    return float((weight * offset * track.x).sum() / spread), float((weight * offset * track.y).sum() / spread)


def _direction(track: Track) -> str:
    speed_x, speed_y = _speed(track)
    if max(abs(speed_x), abs(speed_y)) * (len(track.area) - 1) < MINIMAL_TRAVEL:
        return UNKNOWN
    steps = np.asarray(list(DIRECTIONS.values()), dtype=np.float32)
    return list(DIRECTIONS)[int(np.argmax(steps @ np.asarray([speed_x, speed_y], dtype=np.float32)))]


def _shape(track: Track) -> str:
    """The shape whose silhouette differs least, drawn in each frame at the centre and with the area that were found."""
    radius = math.sqrt(float(np.median(track.area)) / math.pi)
    size = track.alpha.shape[-1]
    differences = []
    for shape in SHAPES:
        template = coverage(shape, track.x, track.y, radius, size=size)
        differences.append(float(np.abs(template - track.alpha).sum()))
    return SHAPES[int(np.argmin(differences))]
