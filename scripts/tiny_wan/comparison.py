"""How far the clips of one model are from those that another makes from the same prompts and noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wanc.report.detectors.drawn_shapes import Attributes
from wanc.report.detectors.moving_shapes import detect, travel

from .evaluation import Answer, Case, agreement

IDENTICAL_DB = 100.0  # instead of infinity: about what one value off by one gives in a clip of 17x64x64

SMALL = 1e-9  # added to both sides of a ratio, so that it is a number even where a broken model moves nothing


@dataclass(frozen=True)
class Clip:
    """What a model made: uint8 [frames, height, width, 3], and the final latents that it was decoded from."""

    frames: NDArray[np.uint8]
    latents: NDArray[np.float32]


Make = Callable[[str, int], Clip]
"""(prompt, seed) to a clip."""


@dataclass(frozen=True)
class Reading:
    """What a clip shows by itself."""

    found: Attributes
    motion: float
    """The mean absolute difference between consecutive frames, in grey levels."""
    travel: float
    """How far the detector sees the shape move, in pixels."""


@dataclass(frozen=True)
class Pair:
    """The clips that two models made for one case."""

    case: Case
    reference: Reading
    reading: Reading
    psnr_db: float
    cosine: float


@dataclass(frozen=True)
class Figures:
    """All pairs of two models."""

    psnr_db: float
    """The mean of each video's PSNR."""
    psnr_db_p5: float
    """What 95 % of the videos exceed."""
    cosine: float
    """The mean of each pair's cosine of final latents."""
    agreement: dict[str, float]
    """The share of clips that show what their prompt says, 0 to 1, for each attribute."""
    points: dict[str, float]
    """How much more than the reference's, in percentage points."""
    motion_ratio: float
    travel_ratio: float


def compare(reference: Make, others: Mapping[str, Make], cases: Sequence[Case]) -> Iterator[dict[str, Pair]]:
    """For each case, the pairs of the reference's clip with that of each of the ``others``, by their names."""
    for case in cases:
        clip = reference(case.prompt, case.seed)
        reading = read(clip)
        yield {name: _pair(case, clip, reading, make(case.prompt, case.seed)) for name, make in others.items()}


def _pair(case: Case, reference: Clip, reading: Reading, clip: Clip) -> Pair:
    return Pair(case, reading, read(clip), psnr(reference.frames, clip.frames), cosine(reference.latents, clip.latents))


def read(clip: Clip) -> Reading:
    """What the detector finds in a clip, and how much moves in it."""
    return Reading(detect(clip.frames), motion(clip.frames), travel(clip.frames))


def psnr(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> float:
    """The PSNR of a whole video, at most ``IDENTICAL_DB``."""
    error = float(np.square(reference.astype(np.float64) - frames).mean())
    return IDENTICAL_DB if error == 0 else min(IDENTICAL_DB, 10 * math.log10(255**2 / error))


def cosine(reference: NDArray[np.float32], latents: NDArray[np.float32]) -> float:
    """The cosine of two latents; 0 where one of them has no direction, being zero or not finite."""
    one, other = reference.ravel().astype(np.float64), latents.ravel().astype(np.float64)
    length = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / length if math.isfinite(length) and length > 0 else 0.0


def motion(frames: NDArray[np.uint8]) -> float:
    """The mean absolute difference between consecutive frames, in grey levels."""
    return float(np.abs(np.diff(frames.astype(np.int16), axis=0)).mean())


def figures(pairs: Sequence[Pair]) -> Figures:
    """The figures of all pairs of one model with the reference."""
    psnrs = [pair.psnr_db for pair in pairs]
    agreed = agreement([Answer(pair.case, pair.reading.found) for pair in pairs])
    expected = agreement_of_reference(pairs)
    return Figures(
        psnr_db=float(np.mean(psnrs)),
        psnr_db_p5=float(np.percentile(psnrs, 5)),
        cosine=float(np.mean([pair.cosine for pair in pairs])),
        agreement=agreed,
        # Rounded, because 0.94 - 0.92 is a little more than 0.02.
        points={name: round(100 * (agreed[name] - expected[name]), 6) for name in agreed},
        motion_ratio=_ratio([pair.reading.motion for pair in pairs], [pair.reference.motion for pair in pairs]),
        travel_ratio=_ratio([pair.reading.travel for pair in pairs], [pair.reference.travel for pair in pairs]),
    )


def agreement_of_reference(pairs: Sequence[Pair]) -> dict[str, float]:
    """The share of the reference's clips that show what their prompt says, 0 to 1, for each attribute."""
    return agreement([Answer(pair.case, pair.reference.found) for pair in pairs])


def _ratio(values: Sequence[float], references: Sequence[float]) -> float:
    """Of the totals, because a still clip has no ratio of its own; 1 where nothing moves in all of them."""
    return (math.fsum(values) + SMALL) / (math.fsum(references) + SMALL)
