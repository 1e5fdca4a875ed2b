"""ffmpeg run by hand on lossless files, to compare with: written here once more, and not with the code under test."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from .clips import Video


def said_of(filter_text: str, first: Path, second: Path) -> str:
    """What ffmpeg prints about two files."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-i", first, "-i", second, "-lavfi", filter_text]
    finished = subprocess.run(
        [*command, "-f", "null", "-"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    return finished.stderr


def y4m(path: Path, planes: NDArray[np.uint8]) -> Path:
    """Writes uint8 [frames, 3, height, width] of Y, Cb and Cr."""
    _, _, height, width = planes.shape
    frames = b"".join(b"FRAME\n" + frame.tobytes() for frame in planes)
    path.write_bytes(f"YUV4MPEG2 W{width} H{height} F24:1 Ip A1:1 C444\n".encode() + frames)
    return path


def of_rgb(filter_name: str, figure: str, reference: Video, frames: Video, folder: Path) -> float:
    """A figure that a filter of ffmpeg prints at its end about two videos, as planar RGB in raw files."""
    inputs: list[object] = []
    for name, video in (("frames", frames), ("reference", reference)):
        (folder / name).write_bytes(video[..., [1, 2, 0]].transpose(0, 3, 1, 2).tobytes())
        size = f"{video.shape[2]}x{video.shape[1]}"
        inputs += ["-f", "rawvideo", "-pixel_format", "gbrp", "-video_size", size, "-i", folder / name]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", *inputs, "-lavfi", filter_name, "-f", "null", "-"]
    said = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stderr
    (value,) = re.findall(rf"{figure}:(\S+)", said)
    return float(value)
