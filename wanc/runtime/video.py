"""MP4 files (H.264), written frame by frame while later frames are still being decoded."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from .errors import EXIT_IO, UserError

CONSTANT_RATE_FACTOR = 17  # x264's scale from 0, lossless, to 51; at 17 hardly anybody sees a loss
_BT709 = 1  # ITU-T H.273: primaries, transfer function and matrix share the code


@contextmanager
def create_video(
    path: Path, *, height: int, width: int, fps: int, metadata: Mapping[str, str] | None = None
) -> Generator[VideoWriter]:
    """`with create_video(path, height=480, width=832, fps=16) as video: video.write(frames)`.

    The file appears at `path` when the block ends well, and not at all otherwise: it grows under another name in the
    same folder. The same frames and metadata give the same bytes, on the same machine and with the same PyAV.

    Args:
        path: ends up holding the video; a file that is there already is replaced.
        height: of the frames, in pixels. An odd height or width gains a repeated line: H.264 needs even ones.
        width: of the frames, in pixels.
        fps: frames per second.
        metadata: container tags, such as prompt, seed and bundle id, under the names given.

    Raises:
        UserError: exit code 74; the folder is missing or cannot be written to, the disk is full or fails.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with _reporting_io(path):
        # FFmpeg opens the file late. This shows now what is wrong with the folder, and sets the usual permissions.
        temporary.open("xb").close()
    try:
        writer = VideoWriter(temporary, path, height, width, fps, metadata or {})
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()
        with _reporting_io(path):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class VideoWriter:
    """What `create_video` gives."""

    def __init__(
        self, file: Path, target: Path, height: int, width: int, fps: int, metadata: Mapping[str, str]
    ) -> None:
        self._target = target
        self._size = (height, width)
        self._count = 0
        # bitexact: no date and no library version. Without use_metadata_tags only a few tag names are kept.
        options = {"movflags": "+faststart+use_metadata_tags", "fflags": "+bitexact"}
        self._container = av.open(str(file), "w", format="mp4", options=options)
        self._container.metadata.update(metadata)
        # x264's macroblock tree reads memory that nobody has written: its files differ from run to run.
        encoder = {"crf": str(CONSTANT_RATE_FACTOR), "mbtree": "0"}
        self._stream = self._container.add_stream("libx264", rate=fps, options=encoder)
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"
        codec = self._stream.codec_context
        codec.thread_count = 1  # x264 spends its bits differently for each number of threads
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = ColorRange.MPEG

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Appends one frame, uint8 RGB [height, width, 3], or several, [frames, height, width, 3]."""
        batch = frames[np.newaxis] if frames.ndim == 3 else frames
        if batch.dtype != np.uint8 or batch.shape[1:] != (*self._size, 3):
            raise ValueError(f"frames {frames.dtype} {frames.shape} for a video of {self._size}")
        for frame in batch:
            picture = av.VideoFrame.from_ndarray(self._make_even(frame), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            picture.pts = self._count
            self._count += 1
            self._encode(picture)

    def finish(self) -> None:
        """Writes what the encoder holds back, and the index."""
        self._encode(None)
        with _reporting_io(self._target):
            self._container.close()

    def close(self) -> None:
        """Lets go of the file, finished or not."""
        # After a failed write FFmpeg fails again on closing; the first error is the one to show.
        with suppress(FFmpegError):
            self._container.close()

    def _encode(self, picture: av.VideoFrame | None) -> None:
        """Hands a picture to the encoder, or None for the end of the video."""
        with _reporting_io(self._target):
            self._container.mux(self._stream.encode(picture))

    def _make_even(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = self._size
        return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


@contextmanager
def _reporting_io(path: Path) -> Generator[None]:
    """Errors of the operating system become errors that the reader can mend, also those that come through FFmpeg."""
    try:
        yield
    except (OSError, FFmpegError) as error:
        # FFmpeg's own complaints have numbers of their own: those are bugs.
        if error.errno not in errno.errorcode:
            raise
        raise UserError("the video cannot be written", where=str(path), exit_code=EXIT_IO) from error
