"""A video in a file: what is to come into it, and what has."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .options import VIDEO
from .pipeline import Pipeline
from .progress import OnNote
from .request import Cut, Request
from .suffixes import require_frames, suffix_of
from .timer import Timer
from .video import Appears, VideoFile, create_video


@dataclass(frozen=True)
class MadeVideo:
    """One video that was made: its file, what it shows, seconds by phase, and the texts that were cut."""

    video: Path
    prompt: str
    frames: int
    seconds: dict[str, float]
    cut: Cut

    def as_json(self) -> dict[str, Any]:
        """Of the texts those that were cut: [tokens kept, tokens in all]."""
        return {"video": str(self.video), "frames": self.frames, **({"cut": self.cut} if self.cut else {})}

    def __str__(self) -> str:
        return f"{self.video}: {self.frames} frames"


@dataclass(frozen=True)
class VideoPlan:
    """A request that was looked at: its video's file, what `create_video` takes for that, and how much work it is."""

    output: Path
    request: Request
    size: Mapping[str, int]
    tags: Mapping[str, str]
    cut: Cut
    work: float
    appears: Appears = "whole"

    @classmethod
    def of(
        cls,
        pipeline: Pipeline,
        output: Path,
        request: Request,
        latents: Path | None = None,
        appears: Appears = "whole",
    ) -> VideoPlan:
        """For an open bundle; `latents` is the file that those of the request are from. Raises UserError for what
        cannot be made.
        """
        shape, fps = pipeline.bundle.shape(request.shape, request.frames), pipeline.bundle.sampling.fps
        require_frames(output, suffix_of(output, VIDEO), shape.frames)
        pipeline.check_room(request)
        tags, cut = pipeline.tags(request), pipeline.cut(request)
        work = pipeline.work(request)
        if latents is not None:
            name = latents.name.encode(errors="backslashreplace").decode()  # a file's name need not be a text
            tags["seed"] = f"latents from {name}"
        size = {"height": shape.height, "width": shape.width, "frames": shape.frames, "fps": fps}
        return cls(output, request, size, tags, cut, work, appears)

    def create(self) -> AbstractContextManager[VideoFile]:
        """The file, which appears when the block ends well: see `create_video`."""
        size: dict[str, Any] = dict(self.size)
        return create_video(self.output, **size, metadata=self.tags, appears=self.appears)

    def tell_cuts(self, on_note: OnNote) -> None:
        """Say of which texts the model does not read all."""
        for name, (kept, count) in self.cut.items():
            on_note(f"{self.output}: the model reads {kept} of the {count} tokens of the {name.replace('_', ' ')}")

    def made(self, timer: Timer) -> MadeVideo:
        """What has become of it."""
        return MadeVideo(self.output, self.request.prompt, self.size["frames"], timer.seconds, self.cut)
