"""What a video is to be, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from .errors import UserError
from .options import OPTIONS, OptionType
from .prompts import prompt_fault

Frames = NDArray[np.uint8]
Latents = NDArray[np.float32]
Cut = Mapping[str, tuple[int, int]]

_KINDS: Mapping[OptionType, tuple[type, str]] = {
    str: (str, "a text"),
    int: (Integral, "a whole number"),
    # What a command line reads from a file.
    Path: (np.ndarray, "an array"),
}
MEMORY = ("keep", "renew")
"""What a change of prompt does to what is kept of finished chunks."""


@dataclass(frozen=True)
class Request:
    """What to make: the options of a run, by their names. Unset fields take the recipe's values.

    `latents`, float32 [1, channels, latent frames, latent height, latent width], replace the seeded noise. Of a causal
    model's video `changes` are further prompts, each by the number of the chunk from which on it holds; with the
    `memory` kept, what is in sight of the past stays as it was made, renewed it is computed again for the new prompt.

    Raises UserError for a value of another type, for a text that is too long, and for a seed that latents leave without
    effect.
    """

    prompt: str
    negative_prompt: str | None = None
    seed: int = 0
    steps: int | None = None
    shape: str | None = None
    frames: int | None = None
    latents: Latents | None = None
    changes: Mapping[int, str] | None = None
    memory: str = "keep"

    def __post_init__(self) -> None:
        options = {option.name: option for option in OPTIONS}
        self._check_changes()
        for entry in fields(self):
            if entry.name == "changes":
                continue
            value = getattr(self, entry.name)
            wanted, words = _KINDS[options[entry.name].type]
            # To Python, true is a whole number.
            if isinstance(value, bool) or not isinstance(value, wanted):
                if value is not None or entry.default is not None:
                    raise UserError(f"{entry.name} is {ascii(value)[:80]}, not {words}")
            elif isinstance(value, str) and (too_long := prompt_fault(value)):
                raise UserError(f"{entry.name} {too_long}")
        if self.latents is not None and self.seed:
            raise UserError("the seed has no effect: the latents replace the seeded noise", hint="give one of them")
        if self.memory not in MEMORY:
            raise UserError(f"memory is {ascii(self.memory)[:80]}, not {' or '.join(MEMORY)}")

    def _check_changes(self) -> None:
        for chunk, text in (self.changes or {}).items():
            if isinstance(chunk, bool) or not isinstance(cast(object, chunk), Integral) or chunk < 1:
                raise UserError(f"a change is at {ascii(chunk)[:80]}, not the number of a chunk from 1 on")
            if fault := prompt_fault(text) if isinstance(cast(object, text), str) else "is no text":
                raise UserError(f"the prompt from chunk {chunk} on {fault}")


@dataclass(frozen=True)
class Result:
    """What was made: frames uint8 [frames, height, width, 3], the final latents, and seconds by phase.

    `fps` are the frames per second that the recipe says, `tags` what a file of the video says about itself. `cut` are
    the texts that are longer than the model reads: tokens kept and tokens in all, by the name in `Request`.
    """

    frames: Frames
    latents: Latents
    seconds: Mapping[str, float]
    fps: int
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    cut: Cut = field(default_factory=dict[str, tuple[int, int]])

    def save(self, path: str | Path) -> None:
        """Write the frames into a file, which appears only when it is complete, as `wanc run -o` does: its suffix says
        whether it is an .mp4, a .png of a single frame, or an .npz with the array `frames`.

        Raises UserError: what `create_video` raises.
        """
        # Imported late: who wants arrays does not need the library that encodes them.
        from .video import create_video

        count, height, width, _ = self.frames.shape
        size = {"height": height, "width": width, "frames": count}
        with create_video(Path(path), **size, fps=self.fps, metadata=self.tags) as video:
            video.write(self.frames)
