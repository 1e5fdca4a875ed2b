"""MP4 files (H.264), written frame by frame."""

from __future__ import annotations

import select
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

CONSTANT_RATE_FACTOR = 17  # x264's scale from 0, lossless, to 51; at 17 hardly anybody sees a loss
_BT709 = 1  # ITU-T H.273: primaries, transfer function and matrix share the code


class Mp4Writer:
    """Writes a video into an open file on disk. Its methods raise FFmpegError where that fails.

    In fragments it can be played as far as it was written, and the file may be a pipe; the encoder then looks at no
    frame ahead, which takes a little more space.
    """

    def __init__(
        self,
        file: IO[bytes],
        height: int,
        width: int,
        fps: int,
        metadata: Mapping[str, str],
        *,
        in_fragments: bool = False,
    ) -> None:
        self._size, self._count = (height, width), 0
        # FFmpeg opens files by name, this one twice: to move the index to the front it reads what it wrote.
        name = file.name if isinstance(file.name, str) else f"/proc/self/fd/{file.name}"
        # bitexact: no date and no library version. Without use_metadata_tags only a few tag names are kept.
        flags = "+frag_every_frame+empty_moov+default_base_moof" if in_fragments else "+faststart"
        options = {"movflags": f"{flags}+use_metadata_tags", "fflags": "+bitexact"}
        self._container = av.open(_Written(file) if in_fragments else name, "w", format="mp4", options=options)
        self._container.metadata.update(metadata)
        # x264's macroblock tree reads memory that nobody has written: its files differ from run to run.
        encoder = {"crf": str(CONSTANT_RATE_FACTOR), "mbtree": "0"}
        if in_fragments:
            encoder |= {"tune": "zerolatency", "g": str(fps)}
        self._stream = self._container.add_stream("libx264", rate=fps, options=encoder)
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.thread_count = 1  # x264 spends its bits differently for each number of threads
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = ColorRange.MPEG

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Appends frames, uint8 RGB [frames, height, width, 3]."""
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(self._make_even(frame), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            picture.pts = self._count
            self._count += 1
            self._container.mux(self._stream.encode(picture))

    def finish(self) -> None:
        """Writes what the encoder holds back, and the index."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def close(self) -> None:
        """Lets go of the file, finished or not."""
        # After a failed write FFmpeg fails again on closing; the first error is the one to show.
        with suppress(FFmpegError):
            self._container.close()

    def _make_even(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = self._size
        if height % 2 == width % 2 == 0:
            return frame
        return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


class _Written:
    """What FFmpeg may do with a pipe."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        """All of it: a pipe takes what it has room for."""
        left = memoryview(data)
        while left:
            taken = self._file.write(left)
            if not taken:  # whoever made this pipe has it not wait, and it is full
                select.select([], [self._file], [])
            left = left[taken or 0 :]
        return len(data)
