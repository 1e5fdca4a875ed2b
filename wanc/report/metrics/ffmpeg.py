"""VMAF and XPSNR, which ffmpeg's own filters measure: of the ffmpeg that imageio-ffmpeg brings, models included.

Another ffmpeg is never taken, so that figures depend on the version of that package and on no machine.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import numpy as np
from numpy.typing import NDArray

from wanc.artifacts.files import output_errors
from wanc.errors import EXIT_IO, EXIT_UNAVAILABLE, UserError
from wanc.report.metrics.pictures import IDENTICAL_DB
from wanc.report.metrics.planes import ycbcr

VMAF_SMALLEST_SIDE = 33
"""In pixels. Of up to 16 libvmaf ends with a segmentation fault, and of up to 32 it finds identical pictures unlike."""

FRAMES_PER_SECOND = 24
"""XPSNR treats all rates below 32 alike, and VMAF all rates."""

LAST_LINES = 10


def vmaf(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> tuple[float, int]:
    """The VMAF of a video, 0 to 100, the mean of its frames, and how many pixels a side each pixel was enlarged to.

    Both are uint8 [frames, height, width, 3]. Pictures with a side below `VMAF_SMALLEST_SIDE` are enlarged, every pixel
    to a square, by as little as it takes; others are taken as they are, as if they were a part of a picture of 1080
    rows. Identical videos get 97.4 to 100, since the model takes what does not move for worse.

    Model vmaf_v0.6.1; Li, Aaron, Katsavounidis, Moorthy and Manohara, "Toward a practical perceptual video quality
    metric", Netflix Technology Blog, 2016. Raises UserError where ffmpeg is missing or fails.
    """
    factor = -(-VMAF_SMALLEST_SIDE // min(frames.shape[1:3]))
    filter_text = "libvmaf=model=version=vmaf_v0.6.1:log_fmt=json:log_path=log"
    log = _log_of(filter_text, _enlarged(ycbcr(frames), factor), _enlarged(ycbcr(reference), factor))
    return float(json.loads(log)["pooled_metrics"]["vmaf"]["mean"]), factor


def xpsnr(reference: NDArray[np.uint8], frames: NDArray[np.uint8]) -> float:
    """The XPSNR of a video in dB, at most `IDENTICAL_DB`: the least of its three planes Y, Cb and Cr.

    Both are uint8 [frames, height, width, 3]. It is a PSNR in which errors count for less where the reference is busy
    or moves. Pictures of fewer than 45×45 pixels are too small for its blocks: theirs is the PSNR of these planes.

    Helmrich, Siekmann, Becker, Bosse, Marpe and Wiegand, "XPSNR: a low-complexity extension of the perceptually
    weighted peak signal-to-noise ratio for high-resolution video quality assessment", ICASSP 2020. Raises UserError
    where ffmpeg is missing or fails.
    """
    # The filter calls its inputs main and reference, but weighs errors by what it sees in the first.
    log = _log_of("xpsnr=stats_file=log", ycbcr(reference), ycbcr(frames))
    (least,) = re.findall(r"\(minimum: (\S+)\)", log)
    return min(IDENTICAL_DB, float(least))


def _enlarged(planes: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return planes.repeat(factor, axis=2).repeat(factor, axis=3)


def _log_of(filter_text: str, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> str:
    """What a filter of two videos writes into its file `log`. The videos are uint8 [frames, 3, height, width]."""
    executable = _executable()
    height, width = first.shape[2:]
    form = ["-f", "rawvideo", "-pixel_format", "yuv444p", "-video_size", f"{width}x{height}"]
    form += ["-framerate", str(FRAMES_PER_SECOND)]
    command = [executable, "-hide_banner", "-nostdin", "-nostats", "-loglevel", "warning"]
    command += [*form, "-i", "first", *form, "-i", "second", "-lavfi", filter_text, "-f", "null", "-"]
    with TemporaryDirectory(prefix="wanc-metrics-") as name:
        folder = Path(name)
        with output_errors(Path(gettempdir()), first.nbytes + second.nbytes):
            (folder / "first").write_bytes(first.data)
            (folder / "second").write_bytes(second.data)
        finished = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
        )
        if finished.returncode or not (folder / "log").exists():
            said = finished.stderr.strip().splitlines()[-LAST_LINES:]
            raise UserError(
                "\n".join([f"ffmpeg failed with exit code {finished.returncode}", *said]),
                where=filter_text.partition("=")[0],
                exit_code=EXIT_IO,
            )
        return (folder / "log").read_text("utf-8")


def _executable() -> str:
    """The ffmpeg that lies in the package imageio-ffmpeg."""
    hint = "pip install 'wanc[report]'"
    try:
        import imageio_ffmpeg
    except ModuleNotFoundError as error:
        raise UserError(
            "VMAF and XPSNR need the package imageio-ffmpeg, which is not installed",
            hint=hint,
            exit_code=EXIT_UNAVAILABLE,
        ) from error
    found = Path(imageio_ffmpeg.get_ffmpeg_exe())
    # Where the package was built without one, it names another: a system's, or what an environment variable says.
    if not found.is_relative_to(Path(imageio_ffmpeg.__file__).parent):
        raise UserError(
            f"VMAF and XPSNR need the ffmpeg that imageio-ffmpeg brings, and it names {found}",
            hint=f"{hint} as a wheel, and unset IMAGEIO_FFMPEG_EXE",
            exit_code=EXIT_UNAVAILABLE,
        )
    return str(found)
