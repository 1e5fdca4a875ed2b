"""PSNR, SSIM and MS-SSIM are those of ffmpeg and of scikit-image, and fall as damage grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from wanc.report.metrics.pictures import (
    IDENTICAL_DB,
    SCALE_WEIGHTS,
    ms_ssim,
    psnr,
    psnr_by_frame,
    ssim,
)

from .clips import PICTURE_DAMAGES, REAL, blur, falls, noise, real
from .raw import of_rgb


@pytest.mark.parametrize("name", REAL)
def test_psnr_and_ssim_are_those_of_ffmpeg(name: str, tmp_path: Path) -> None:
    reference = real(name, 2)
    frames = noise(blur(reference, 1), 3)
    assert psnr(reference, frames) == pytest.approx(of_rgb("psnr", "average", reference, frames, tmp_path), abs=1e-5)
    assert ssim(reference, frames) == pytest.approx(of_rgb("ssim", "All", reference, frames, tmp_path), abs=1e-5)


def test_they_are_those_of_ffmpeg_for_a_clip_and_its_distorted_copy(tmp_path: Path) -> None:
    """And for each frame by itself."""
    reference, frames = real("carphone_pristine.mp4", 6), real("carphone_distorted.mp4", 6)
    assert psnr(reference, frames) == pytest.approx(of_rgb("psnr", "average", reference, frames, tmp_path), abs=1e-5)
    assert ssim(reference, frames) == pytest.approx(of_rgb("ssim", "All", reference, frames, tmp_path), abs=1e-5)
    assert ssim(reference, frames) < 0.9 and psnr(reference, frames) < 30
    alone = [slice(index, index + 1) for index in range(6)]
    expected = [of_rgb("psnr", "average", reference[one], frames[one], tmp_path) for one in alone]
    assert psnr_by_frame(reference, frames) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (9, 15), (11, 64), (61, 50)])
def test_they_are_those_of_ffmpeg_at_sizes_that_blocks_do_not_fill(size: tuple[int, int], tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    reference, frames = (random.integers(0, 256, (2, *size, 3), dtype=np.uint8) for _ in range(2))
    assert psnr(reference, frames) == pytest.approx(of_rgb("psnr", "average", reference, frames, tmp_path), abs=1e-5)
    assert ssim(reference, frames) == pytest.approx(of_rgb("ssim", "All", reference, frames, tmp_path), abs=1e-5)


def test_psnr_is_that_of_scikit_image() -> None:
    reference, frames = real("bikes.mp4", 3), blur(real("bikes.mp4", 3), 2)
    assert psnr(reference, frames) == pytest.approx(peak_signal_noise_ratio(reference, frames, data_range=255))


def test_ms_ssim_is_made_of_what_scikit_image_measures_at_each_scale() -> None:
    """A K1 beyond all values leaves structure alone."""
    reference, frames = real("bikes.mp4", 2), noise(real("bikes.mp4", 2), 10)
    values = []
    for pair in zip(reference, frames, strict=True):
        one, other = (picture.astype(float) for picture in pair)
        product = np.ones(3)
        for scale, weight in enumerate(SCALE_WEIGHTS):
            last = scale == len(SCALE_WEIGHTS) - 1
            product *= [
                structural_similarity(
                    one[..., plane], other[..., plane], data_range=255, gaussian_weights=True, sigma=1.5,
                    use_sample_covariance=False, K1=0.01 if last else 1e6,
                ) ** weight
                for plane in range(3)
            ]  # fmt: skip
            one, other = (
                (p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2]) / 4
                for p in (picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2] for picture in (one, other))
            )
        values.append(product.mean())
    assert ms_ssim(reference, frames) == (pytest.approx(np.mean(values), abs=1e-6), 5)


@pytest.mark.parametrize(
    ("side", "scales"), [(11, 1), (16, 1), (21, 1), (22, 2), (23, 2), (64, 3), (175, 4), (176, 5), (400, 5)]
)
def test_ms_ssim_says_how_many_scales_fit(side: int, scales: int) -> None:
    frames = np.random.default_rng(2).integers(0, 256, (1, side, 2 * side, 3), dtype=np.uint8)
    assert ms_ssim(frames, frames) == (pytest.approx(1), scales)
    value, _ = ms_ssim(frames, noise(frames, 20))
    assert 0.5 < value < 1


def test_ms_ssim_of_what_is_the_opposite_is_zero() -> None:
    frames = np.random.default_rng(3).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    assert ms_ssim(frames, 255 - frames)[0] == 0


@pytest.mark.parametrize("damage", PICTURE_DAMAGES)
def test_all_fall_as_damage_grows(damage: str) -> None:
    reference = real("carphone_pristine.mp4", 2)
    spoil, strengths = PICTURE_DAMAGES[damage]
    videos = [reference, *(spoil(reference, strength) for strength in strengths)]
    assert falls([psnr(reference, video) for video in videos])
    assert falls([ssim(reference, video) for video in videos])
    assert falls([ms_ssim(reference, video)[0] for video in videos])


@given(seed=st.integers(0, 2**32 - 1), amplitude=st.integers(1, 255))
def test_bounds_and_symmetry(seed: int, amplitude: int) -> None:
    random = np.random.default_rng(seed)
    one = random.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    other = np.clip(one + random.integers(-amplitude, amplitude + 1, one.shape), 0, 255).astype(np.uint8)
    assert psnr(one, other) == psnr(other, one) and 0 <= psnr(one, other) <= IDENTICAL_DB
    assert ssim(one, other) == pytest.approx(ssim(other, one)) and -1 <= ssim(one, other) < 1
    assert psnr_by_frame(one, other).max() >= psnr(one, other) >= psnr_by_frame(one, other).min()
    assert psnr(one, one) == IDENTICAL_DB and ssim(one, one) == ms_ssim(one, one)[0] == 1


def test_a_huge_psnr_is_no_more_than_that_of_identical_videos() -> None:
    reference = np.zeros((2, 720, 1280, 3), np.uint8)
    frames = reference.copy()
    frames[0, 0, 0, 0] = 1
    assert psnr(reference, frames) == IDENTICAL_DB
