"""How far the pictures of a video are from those of a reference, each compared with the one in its place.

All of them look at the red, the green and the blue plane alike, as ffmpeg does with planar RGB (gbrp), so that a wrong
colour counts as much as a wrong brightness.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

IDENTICAL_DB = 100.0
"""Instead of infinity: about what one value off by one gives in a clip of 17 frames of 64×64."""

LARGEST = 255
SHARE_OF_MEANS, SHARE_OF_VARIANCES = 0.01, 0.03
"""K1 and K2 of SSIM, which keep it a number where a picture is black or flat."""

WINDOW = 64
"""Values in a window of SSIM, 8×8."""
SMALL_SQUARE = int((SHARE_OF_MEANS * LARGEST) ** 2 * WINDOW + 0.5)
SMALL_VARIANCE = int((SHARE_OF_VARIANCES * LARGEST) ** 2 * WINDOW * (WINDOW - 1) + 0.5)
"""The same for sums over a window, as ffmpeg has them, whole numbers."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of MS-SSIM, from the full size down."""
RADIUS, SIGMA = 5, 1.5
"""Of the Gaussian windows of MS-SSIM, in pixels."""
SMALLEST_SIDE = 2 * RADIUS + 1
"""Of a picture that has a window, in pixels. The windows of SSIM are smaller."""


def psnr(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> float:
    """The PSNR of a whole video in dB, from the mean of all squared errors; at most `IDENTICAL_DB`.

    Both are uint8 [frames, height, width, 3]. It is the `average` of ffmpeg's filter psnr.
    """
    return _decibels(float(_squared_errors(reference, frames).mean()))


def psnr_by_frame(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The PSNR of each frame in dB, at most `IDENTICAL_DB`: float64 [frames], of two uint8 [frames, height, width, 3].

    It is the `psnr_avg` of ffmpeg's filter psnr.
    """
    return np.array([_decibels(error) for error in _squared_errors(reference, frames)])


def _squared_errors(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    pairs = zip(reference, frames, strict=True)
    return np.array([np.square(one.astype(np.int32) - other).mean() for one, other in pairs])


def _decibels(error: float) -> float:
    return IDENTICAL_DB if error == 0 else min(IDENTICAL_DB, 10 * math.log10(LARGEST**2 / error))


def ssim(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> float:
    """The SSIM of a whole video, 1 where both are identical: the `All` of ffmpeg's filter ssim.

    Both are uint8 [frames, height, width, 3], with sides of 8 pixels or more.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity",
    IEEE Transactions on Image Processing 13, 2004; with windows of 8×8 pixels, one every 4, in place of Gaussian ones.
    Rows and columns that fill no block of 4×4 are left out.
    """
    return float(np.mean([_ssim_of_picture(one, other) for one, other in zip(reference, frames, strict=True)]))


def _ssim_of_picture(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The sums of a window are 64 times its means, so that all is whole numbers until the end."""
    first, second = one.astype(np.int64), other.astype(np.int64)
    sum_first, sum_second = _window_sums(first), _window_sums(second)
    products, squares = sum_first * sum_second, sum_first**2 + sum_second**2
    covariances = WINDOW * _window_sums(first * second) - products
    variances = WINDOW * _window_sums(first**2 + second**2) - squares
    brightness = (2 * products + SMALL_SQUARE) / (squares + SMALL_SQUARE)
    structure = (2 * covariances + SMALL_VARIANCE) / (variances + SMALL_VARIANCE)
    return float((brightness * structure).mean())


def _window_sums(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of the values in each window: four blocks of 4×4 that meet in a corner."""
    rows, columns = values.shape[0] // 4, values.shape[1] // 4
    blocks = values[: 4 * rows, : 4 * columns].reshape(rows, 4, columns, 4, -1).sum(axis=(1, 3))
    pairs = blocks[:-1] + blocks[1:]
    return pairs[:, :-1] + pairs[:, 1:]


def ms_ssim(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> tuple[float, int]:
    """The MS-SSIM of a whole video, 1 where both are identical, and at how many scales: the mean of its planes.

    Both are uint8 [frames, height, width, 3], with sides of `SMALLEST_SIDE` pixels or more. Of sides below 176 pixels
    there are fewer than five scales, and their weights grow until they add up to as much: such a value compares with
    others of as many scales alone.

    Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment", Asilomar Conference on
    Signals, Systems and Computers, 2003.
    """
    scales = min(len(SCALE_WEIGHTS), 1 + int(math.log2(min(frames.shape[1:3]) / SMALLEST_SIDE)))
    weights = np.array(SCALE_WEIGHTS[:scales]) * (sum(SCALE_WEIGHTS) / sum(SCALE_WEIGHTS[:scales]))
    pairs = zip(reference, frames, strict=True)
    return float(np.mean([_ms_ssim_of_picture(one, other, weights) for one, other in pairs])), scales


def _ms_ssim_of_picture(one: NDArray[np.uint8], other: NDArray[np.uint8], weights: NDArray[np.float64]) -> float:
    """Structure counts at each scale, brightness at the last alone. Below 0, where nothing is alike, it counts as 0."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    product = np.ones(3)
    for weight in weights[:-1]:
        _, structure = _alike(first, second)
        product *= np.maximum(structure, 0) ** weight
        first, second = _half(first), _half(second)
    both, _ = _alike(first, second)
    return float((product * np.maximum(both, 0) ** weights[-1]).mean())


def _alike(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over all windows of each plane: of brightness times structure, and of structure alone."""
    mean_first, mean_second = _windowed(first), _windowed(second)
    products, squares = mean_first * mean_second, mean_first**2 + mean_second**2
    covariances = _windowed(first * second) - products
    variances = _windowed(first**2 + second**2) - squares
    small_square, small_variance = (SHARE_OF_MEANS * LARGEST) ** 2, (SHARE_OF_VARIANCES * LARGEST) ** 2
    brightness = (2 * products + small_square) / (squares + small_square)
    structure = (2 * covariances + small_variance) / (variances + small_variance)
    return (brightness * structure).mean(axis=(0, 1)), structure.mean(axis=(0, 1))


def _windowed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over a Gaussian window around each value, where the whole window lies in the picture."""
    from skimage.filters import gaussian

    means = gaussian(values, SIGMA, truncate=RADIUS / SIGMA, channel_axis=-1, preserve_range=True)
    return means[RADIUS:-RADIUS, RADIUS:-RADIUS]


def _half(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A picture of half the size: means of 2×2; the last row or column is left out where it has no other."""
    rows, columns = values.shape[0] // 2, values.shape[1] // 2
    return values[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, -1).mean(axis=(1, 3))
