"""Videos and pictures of clips, for people: small frames enlarged, large ones beside each other made smaller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wanc.report.document import Media
from wanc.runtime.destination import reporting
from wanc.runtime.video import create_video

FOLDER = "media"
WHAT = "the report"
SMALLEST_SIDE = 256
"""Of what people see, in pixels: smaller frames are enlarged by a whole factor, each pixel a square."""
STRIP_FRAMES, STRIP_WIDTH = 9, 320
"""How many frames a strip holds, and how wide one may be."""
GAIN = 8
"""How many times a difference is shown."""

Frames = NDArray[np.uint8]
"""uint8 RGB [frames, height, width, 3]."""


def write_media(folder: Path, stem: str, frames: Frames, fps: int, reference: Frames | None = None) -> Media:
    """Write a clip's video and its strip as `<folder>/media/<stem>.mp4` and `.png`; returns where they lie.

    The strip has at most nine frames, evenly spaced. Those of a bundle come with the reference's frames, of the same
    shape: above its own stand theirs, below them eight times the difference. Raises what `create_video` raises.
    """
    media = Media(video=f"{FOLDER}/{stem}.mp4", strip=f"{FOLDER}/{stem}.png")
    with reporting(folder / FOLDER, WHAT):
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    factor = -(-SMALLEST_SIDE // min(frames.shape[1:3]))
    _, height, width, _ = frames.shape
    with create_video(folder / media.video, height=height * factor, width=width * factor, fps=fps) as video:
        for frame in frames:
            video.write(enlarged(frame, factor))
    picture = strip(frames, reference)
    height, width, _ = picture.shape
    with create_video(folder / media.strip, height=height, width=width, fps=1, frames=1) as file:
        file.write(picture)
    return media


def strip(frames: Frames, reference: Frames | None = None) -> Frames:
    """Frames from left to right as one picture, uint8 [height, width, 3]; see `write_media` for its rows."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, STRIP_FRAMES).round().astype(int))
    rows = [frames[chosen]]
    if reference is not None:
        rows = [reference[chosen], frames[chosen], difference(reference[chosen], frames[chosen])]
    return np.concatenate([np.concatenate([_sized(frame) for frame in row], axis=1) for row in rows])


def difference(reference: Frames, frames: Frames) -> Frames:
    """How far apart each value is, eight times, as far as a byte goes."""
    apart = np.abs(frames.astype(np.int16) - reference.astype(np.int16))
    return np.minimum(apart * GAIN, 255).astype(np.uint8)


def enlarged(frame: Frames, factor: int) -> Frames:
    """A picture of which each pixel is a square of `factor` pixels."""
    return frame.repeat(factor, axis=0).repeat(factor, axis=1)


def _sized(frame: Frames) -> Frames:
    """A frame as large as a strip has them; where it shrinks, a pixel is the mean of a square of them."""
    height, width, _ = frame.shape
    factor = -(-width // STRIP_WIDTH)
    if factor == 1:
        return enlarged(frame, max(1, STRIP_WIDTH // 2 // width))
    rows, columns = height // factor, width // factor
    squares = frame[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
    return squares.mean(axis=(1, 3)).round().astype(np.uint8)
