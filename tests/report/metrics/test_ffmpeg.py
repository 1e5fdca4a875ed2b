"""VMAF and XPSNR are what ffmpeg gives for lossless files, and what stops them says so."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from wanc.errors import EXIT_IO, EXIT_UNAVAILABLE, OutputError, UserError
from wanc.report.metrics import ffmpeg
from wanc.report.metrics.ffmpeg import VMAF_SMALLEST_SIDE, vmaf, xpsnr
from wanc.report.metrics.pictures import IDENTICAL_DB
from wanc.report.metrics.planes import ycbcr

from .clips import PICTURE_DAMAGES, REAL, Video, blur, falls, moving, noise, real
from .raw import said_of, y4m


def by_hand(reference: Video, frames: Video, folder: Path) -> tuple[float, float]:
    """VMAF and XPSNR of the same planes in files of another form."""
    first, second = y4m(folder / "frames.y4m", ycbcr(frames)), y4m(folder / "reference.y4m", ycbcr(reference))
    said_of(f"libvmaf=log_fmt=json:log_path={folder}/vmaf.json", first, second)
    scores = [frame["metrics"]["vmaf"] for frame in json.loads((folder / "vmaf.json").read_text())["frames"]]
    assert len(scores) == len(frames)
    (least,) = re.findall(r"\(minimum: (\S+)\)", said_of("xpsnr", second, first))
    return float(np.mean(scores)), float(least)


@pytest.mark.parametrize("name", REAL)
def test_they_are_what_ffmpeg_gives_for_lossless_files(name: str, tmp_path: Path) -> None:
    reference = real(name, 2)
    frames = noise(blur(reference, 1), 3)
    expected_vmaf, expected_xpsnr = by_hand(reference, frames, tmp_path)
    assert vmaf(reference, frames) == (pytest.approx(expected_vmaf, abs=1e-5), 1)
    assert xpsnr(reference, frames) == pytest.approx(expected_xpsnr, abs=1e-4)


def test_a_distorted_clip_is_worse_than_an_identical_one(tmp_path: Path) -> None:
    reference, frames = real("carphone_pristine.mp4", 6), real("carphone_distorted.mp4", 6)
    expected_vmaf, expected_xpsnr = by_hand(reference, frames, tmp_path)
    assert vmaf(reference, frames)[0] == pytest.approx(expected_vmaf, abs=1e-5)
    assert xpsnr(reference, frames) == pytest.approx(expected_xpsnr, abs=1e-4)
    assert vmaf(reference, frames)[0] < 60 < 97.4 < vmaf(reference, reference)[0]
    assert xpsnr(reference, frames) < 30 < xpsnr(reference, reference) == IDENTICAL_DB


def test_planes_are_those_of_a_video_file() -> None:
    """Of swscale's, which rounds otherwise, by one at most."""
    for frame, planes in zip(real("bikes.mp4", 2), ycbcr(real("bikes.mp4", 2)), strict=True):
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
            format="yuv444p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        assert np.abs(picture.to_ndarray().astype(int) - planes).max() <= 1
    corners = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 0, 255]], np.uint8).reshape(1, 1, 4, 3)
    assert ycbcr(corners)[0, :, 0].T.tolist() == [[16, 128, 128], [235, 128, 128], [63, 102, 240], [32, 240, 118]]


@pytest.mark.parametrize(
    ("side", "enlargement"), [(11, 3), (16, 3), (17, 2), (VMAF_SMALLEST_SIDE - 1, 2), (VMAF_SMALLEST_SIDE, 1), (64, 1)]
)
def test_pictures_that_are_too_small_for_vmaf_are_enlarged(side: int, enlargement: int) -> None:
    reference = moving(side=side, count=5)
    score, factor = vmaf(reference, reference)
    assert factor == enlargement and 97.4 < score <= 100
    assert vmaf(reference, noise(reference, 20))[0] < score
    large = reference.repeat(enlargement, axis=1).repeat(enlargement, axis=2)
    assert vmaf(large, large)[0] == score


def test_xpsnr_of_small_pictures_is_the_psnr_of_their_planes() -> None:
    reference = moving(side=44, count=3)
    frames = noise(reference, 5)
    errors = np.square(ycbcr(reference).astype(float) - ycbcr(frames)).mean(axis=(2, 3))
    # The mean of a video is that of its frames' roots.
    expected = 20 * np.log10(255 / np.sqrt(errors).mean(axis=0)).min()
    assert xpsnr(reference, frames) == pytest.approx(expected, abs=1e-4)


def test_xpsnr_goes_by_what_is_busy_in_the_reference() -> None:
    """The same errors count for less in it, and not because they make the video busy."""
    flat, busy = np.full((3, 128, 128, 3), 128, np.uint8), noise(np.full((3, 128, 128, 3), 128, np.uint8), 25)
    error = np.random.default_rng(7).integers(-6, 7, flat.shape)
    on_flat, on_busy = (xpsnr(video, np.clip(video + error, 0, 255).astype(np.uint8)) for video in (flat, busy))
    assert on_busy > on_flat + 6


@pytest.mark.parametrize("damage", PICTURE_DAMAGES)
def test_they_fall_as_damage_grows(damage: str) -> None:
    reference = real("carphone_pristine.mp4", 3)
    spoil, strengths = PICTURE_DAMAGES[damage]
    videos = [spoil(reference, strength) for strength in strengths]
    assert falls([xpsnr(reference, video) for video in (reference, *videos)])
    # VMAF looks at brightness alone: it has next to nothing to say of a colour.
    scores = [vmaf(reference, video)[0] for video in videos]
    assert falls(scores) if damage != "colour" else min(scores) > 85


# Faults


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    for metric in (vmaf, xpsnr):
        with pytest.raises(UserError, match="need the package imageio-ffmpeg") as caught:
            metric(moving(), moving())
        assert (caught.value.exit_code, caught.value.hint) == (EXIT_UNAVAILABLE, "pip install 'wanc[report]'")


@pytest.mark.parametrize("other", ["ffmpeg", "/usr/bin/ffmpeg"])
def test_no_other_ffmpeg_is_run(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: other)
    with pytest.raises(UserError, match=f"it names {other}$") as caught:
        vmaf(moving(), moving())
    assert caught.value.exit_code == EXIT_UNAVAILABLE and "wanc[report]" in str(caught.value.hint)


def test_where_ffmpeg_fails_its_last_lines_are_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing = tmp_path / "ffmpeg"
    failing.write_text("#!/bin/sh\ncat\nfor line in $(seq 30); do echo line $line >&2; done\nexit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "_executable", lambda: str(failing))
    with pytest.raises(UserError) as caught:
        xpsnr(moving(), moving())
    lines = str(caught.value).splitlines()
    assert lines[0] == "xpsnr: ffmpeg failed with exit code 3"
    assert lines[1:] == [f"line {number}" for number in range(21, 31)]
    assert caught.value.exit_code == EXIT_IO


def test_what_ffmpeg_itself_says_is_shown() -> None:
    planes = ycbcr(moving(count=2))
    with pytest.raises(UserError, match=r"nosuchfilter: ffmpeg failed[^$]*No such filter: 'nosuchfilter'"):
        ffmpeg._log_of("nosuchfilter", planes, planes)


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    xpsnr(moving(), moving())
    assert list(tmp_path.iterdir()) == []

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError):
        xpsnr(moving(), moving())
    assert list(tmp_path.iterdir()) == []
