"""Files of a video: an .mp4, its single frame as a .png, or its frames as an array in an .npz file."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from . import suffixes
from .destination import reporting
from .errors import UserError
from .options import VIDEO
from .partial_file import partial_file, streamed_file
from .suffixes import MP4, PNG, require_frames, suffix_of
from .whole_file import whole_file

WHAT = suffixes.WHAT[VIDEO]


Appears = Literal["whole", "partial", "streamed"]
"""When a file is there: complete or not at all, from the beginning on under a name that says that it is partial, or, to
standard output, as it is written."""
FILES = {"whole": whole_file, "partial": partial_file, "streamed": streamed_file}


class Writer(Protocol):
    """What knows a kind of file."""

    def write(self, frames: NDArray[np.uint8]) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class VideoFile:
    """What `create_video` gives."""

    def __init__(self, path: Path, writer: Writer, height: int, width: int) -> None:
        self._path, self._writer, self._size = path, writer, (height, width)

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Appends one frame, uint8 RGB [height, width, 3], or several, [frames, height, width, 3]."""
        batch = frames[np.newaxis] if frames.ndim == 3 else frames
        if batch.dtype != np.uint8 or batch.shape[1:] != (*self._size, 3):
            raise ValueError(f"frames {frames.dtype} {frames.shape} for a video of {self._size}")
        with reporting(self._path, WHAT):
            self._writer.write(batch)


@contextmanager
def create_video(
    path: Path,
    *,
    height: int,
    width: int,
    fps: int,
    frames: int | None = None,
    metadata: Mapping[str, str] | None = None,
    appears: Appears = "whole",
) -> Generator[VideoFile]:
    """`with create_video(path, height=480, width=832, fps=16) as video: video.write(frames)`.

    The file appears at `path` when the block ends well, and not at all otherwise: see `whole_file`. The same frames
    and metadata give the same bytes, on the same machine and with the same libraries. A video may also be of use while
    it grows: see `Appears`.

    Args:
        path: ends up holding the video, the picture or the array, as its suffix says; `-` is standard output, which
            gets the video.
        height: of the frames, in pixels. An odd height or width of a video gains a repeated line: H.264 needs even
            ones.
        width: of the frames, in pixels.
        fps: frames per second.
        frames: how many there will be, which only an .mp4 need not know before.
        metadata: tags, such as prompt, seed and bundle id, under the names given. An array has none.
        appears: when, and under which name.

    Raises:
        UserError: the suffix is another one, or a picture would have several frames; only a video grows; what
            `whole_file`, `partial_file` and `streamed_file` raise.
    """
    suffix = suffix_of(path, VIDEO)
    if frames is not None:
        require_frames(path, suffix, frames)
    elif suffix != MP4:
        raise ValueError(f"how many frames will {path} hold?")
    if appears != "whole" and suffix != MP4:
        raise UserError(f"only an {MP4} can be played while it grows", where=str(path), hint="name it out.mp4")
    with FILES[appears](path, WHAT) as file:
        with reporting(path, WHAT):
            if suffix == MP4:
                from .mp4 import Mp4Writer

                writer: Writer = Mp4Writer(file, height, width, fps, metadata or {}, in_fragments=appears != "whole")
            else:
                writer = _writer(suffix, file, frames or 0, height, width, metadata or {})
        try:
            yield VideoFile(path, writer, height, width)
            with reporting(path, WHAT):
                writer.finish()
        finally:
            writer.close()


def _writer(suffix: str, file: IO[bytes], frames: int, height: int, width: int, metadata: Mapping[str, str]) -> Writer:
    """What writes a picture or an array. Imported late: they do without the library that encodes videos."""
    if suffix == PNG:
        from .png import PngWriter

        return PngWriter(file, metadata)
    from .frames_array import FramesArrayWriter

    return FramesArrayWriter(file, frames, height, width)
