"""What an output is written as: the suffix of its name decides, in upper case or lower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .destination import STDOUT, require_replaceable
from .errors import UserError
from .interface import TASK as GRAPH
from .options import VIDEO

MP4, PNG, NPZ = ".mp4", ".png", ".npz"
SUFFIXES: Mapping[str, Mapping[str, str]] = {
    VIDEO: {MP4: "a video", PNG: "a picture, of a single frame", NPZ: "the array `frames`"},
    GRAPH: {NPZ: "the outputs"},
}
"""By task, what can be written; the first is what standard output gets."""

WHAT: Mapping[str, str] = {VIDEO: "the video", GRAPH: "the outputs"}
"""By task, what errors call it."""


def suffix_of(path: Path, task: str) -> str:
    """The suffix in lower case. Raises UserError where the task writes nothing of that kind.

    Where nothing can be written to that name, as to a device, this is said and not what to write there.
    """
    known = SUFFIXES[task]
    first = next(iter(known))
    if path == STDOUT:
        return first
    suffix = path.suffix.lower()
    if suffix not in known:
        require_replaceable(path, WHAT[task])
        found = f"nothing is written as {path.suffix}" if suffix else "the name has no suffix"
        kinds = ", ".join(f"{name} ({content})" for name, content in known.items())
        raise UserError(
            f"{found}; what can be written here: {kinds}",
            where=str(path),
            hint=f"name it {path.with_suffix(first).name}",
        )
    return suffix


def require_frames(path: Path, suffix: str, frames: int) -> None:
    """Raises UserError where a video of so many frames is to become a picture."""
    if suffix == PNG and frames != 1:
        raise UserError(
            f"a {PNG} is one picture, and this video has {frames} frames",
            where=str(path),
            hint=f"ask for a single one: --frames 1, or name it {path.with_suffix(MP4).name}",
        )
