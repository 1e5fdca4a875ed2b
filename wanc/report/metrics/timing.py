"""Whether a video shows what its reference shows at the same time: frames shown again, and a lead or a lag."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wanc.report.metrics.planes import small_luma

REPEATED_SHARE = 0.1
"""A frame repeats the one before it where less than this share of what should change does."""

LEAST_EXPLAINED = 0.1
"""Where a shift explains less of the errors than this share, there is none: chance explains a little of any noise."""


def repeated_frames(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> tuple[int, ...]:
    """The indices of frames that repeat the one before them although the reference goes on there.

    Both are uint8 [frames, height, width, 3]. A dropped frame leaves one such index, every frame shown twice all odd
    ones. What changes is the mean absolute difference of brightness from the frame before. The reference goes on where
    it changes by more than `REPEATED_SHARE` of its mean change.
    """
    changes, expected = _changes(frames), _changes(reference)
    goes_on = expected > REPEATED_SHARE * expected.mean()
    return tuple(int(index) + 1 for index in np.flatnonzero(goes_on & (changes < REPEATED_SHARE * expected)))


def _changes(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    pictures, _ = small_luma(frames)
    return np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2))


def time_shift_frames(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> int:
    """By how many frames a video is late, or early where it is negative: frame t shows what the reference did at t - n.

    Both are uint8 [frames, height, width, 3]. It is the shift, of at most half the video, that explains most: the share
    of the squared errors of brightness that are gone with it, in the frames that have a counterpart then. Of shifts
    that explain as much, the smallest, and 0 where none explains `LEAST_EXPLAINED`.
    """
    expected, _ = small_luma(reference)
    shown, _ = small_luma(frames)
    unshifted = _errors(expected, shown)
    shifts = sorted(range(-(len(shown) // 2), len(shown) // 2 + 1), key=abs)
    explained = [_explained(expected, shown, unshifted, shift) for shift in shifts]
    return shifts[int(np.argmax(explained))] if max(explained) > LEAST_EXPLAINED else 0


def _explained(
    expected: NDArray[np.float32], shown: NDArray[np.float32], unshifted: NDArray[np.float32], shift: int
) -> float:
    """Of frames that a shift takes out of the video nothing is said: they are in neither sum."""
    there = slice(max(0, shift), len(shown) + min(0, shift))
    counterpart = slice(max(0, -shift), len(shown) + min(0, -shift))
    before = float(unshifted[there].sum())
    return 1 - float(_errors(expected[counterpart], shown[there]).sum()) / before if before else 0.0


def _errors(expected: NDArray[np.float32], shown: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.square(expected - shown).mean(axis=(1, 2))
