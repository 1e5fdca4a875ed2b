"""What a video is to be, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .options import OPTIONS, OptionType
from .prompts import prompt_fault

Frames = NDArray[np.uint8]
Latents = NDArray[np.float32]

_KINDS: Mapping[OptionType, tuple[type, str]] = {
    str: (str, "a text"),
    int: (Integral, "a whole number"),
    # What a command line reads from a file.
    Path: (np.ndarray, "an array"),
}


@dataclass(frozen=True)
class Request:
    """What to make: the options of a run, by their names. Unset fields take the recipe's values.

    `latents`, float32 [1, channels, latent frames, latent height, latent width], replace the seeded noise. Raises
    UserError for a value of another type, and for a text that is too long.
    """

    prompt: str
    negative_prompt: str | None = None
    seed: int = 0
    steps: int | None = None
    shape: str | None = None
    frames: int | None = None
    latents: Latents | None = None

    def __post_init__(self) -> None:
        options = {option.name: option for option in OPTIONS}
        for entry in fields(self):
            value = getattr(self, entry.name)
            wanted, words = _KINDS[options[entry.name].type]
            # To Python, true is a whole number.
            if isinstance(value, bool) or not isinstance(value, wanted):
                if value is not None or entry.default is not None:
                    raise UserError(f"{entry.name} is {ascii(value)[:80]}, not {words}")
            elif isinstance(value, str) and (too_long := prompt_fault(value)):
                raise UserError(f"{entry.name} {too_long}")


@dataclass(frozen=True)
class Result:
    """What was made: frames uint8 [frames, height, width, 3], the final latents, and seconds by phase.

    `fps` are the frames per second that the recipe says, `tags` what a file of the video says about itself.
    """

    frames: Frames
    latents: Latents
    seconds: Mapping[str, float]
    fps: int
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    def save(self, path: str | Path) -> None:
        """Write the frames into an mp4 file, which appears only when it is complete.

        Raises UserError, exit code 74, where it cannot be written.
        """
        # Imported late: who wants arrays does not need the library that encodes them.
        from .video import create_video

        _, height, width, _ = self.frames.shape
        with create_video(Path(path), height=height, width=width, fps=self.fps, metadata=self.tags) as video:
            video.write(self.frames)
