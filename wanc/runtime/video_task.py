"""The task `text-to-video`: one prompt and one video, or a list of prompts and a folder of videos."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cost import RunCost
from .destination import require_replaceable
from .directory import Root
from .errors import EXIT_IO, UserError
from .pipeline import Pipeline
from .progress import OnNote, OnProgress, ignore, ignore_note
from .prompts import read_prompts
from .request import Cut, Request
from .suffixes import MP4
from .timer import Timer, shown_seconds
from .video import WHAT, create_video
from .whole_file import require_writable

FEWEST_DIGITS = 4


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
class VideoReport:
    """What `run_video` made, and what it cost."""

    made: MadeVideo
    cost: RunCost
    ok = True

    def as_json(self) -> dict[str, Any]:
        return {**self.made.as_json(), **self.cost.as_json()}

    def as_text(self) -> str:
        return f"{self.made} ({self.cost})"


@dataclass(frozen=True)
class VideosReport:
    """What `run_videos` made, and what it cost: each video by itself, and all together."""

    made: list[MadeVideo]
    cost: RunCost
    ok = True

    def as_json(self) -> dict[str, Any]:
        videos = [{**entry.as_json(), "prompt": entry.prompt, "seconds": entry.seconds} for entry in self.made]
        return {"videos": videos, **self.cost.as_json()}

    def as_text(self) -> str:
        lines = [f"{entry} ({shown_seconds(entry.seconds)})" for entry in self.made]
        return "\n".join([*lines, f"{len(self.made)} videos ({self.cost})"])


def run_video(
    root: Root,
    output: Path,
    *,
    prompt: str,
    latents: Path | None = None,
    threads: int | None = None,
    device_budget: str | None = None,
    on_progress: OnProgress = ignore,
    on_note: OnNote = ignore_note,
    **options: Any,
) -> VideoReport:
    """Generate one video into a file, which appears only when it is complete.

    `options` are the other fields of `Request`. Raises UserError.
    """
    require_writable(output, WHAT)
    timer = Timer()
    with timer.phase("verify"):
        pipeline = Pipeline.open(root, threads=threads, device_budget=device_budget, on_progress=on_progress)
    noise = _noise(pipeline, latents, options)
    made = _make(pipeline, output, Request(prompt, latents=noise, **options), latents, on_progress, on_note)
    timer.add(made.seconds)
    return VideoReport(made, RunCost.so_far(timer, pipeline.executor))


def run_videos(
    root: Root,
    folder: Path,
    *,
    prompts: Path,
    latents: Path | None = None,
    threads: int | None = None,
    device_budget: str | None = None,
    on_progress: OnProgress = ignore,
    on_note: OnNote = ignore_note,
    **options: Any,
) -> VideosReport:
    """Generate a video for each prompt in a text file: `0001.mp4`, `0002.mp4`, … in a folder, made if it is not there.

    Each is the video that the prompt alone would give with the same options, seed included, and appears when it is
    complete: those that are stay whatever happens to the next. Raises UserError.
    """
    texts, timer, made = read_prompts(prompts), Timer(), list[MadeVideo]()
    digits = max(FEWEST_DIGITS, len(str(len(texts))))
    outputs = [folder / f"{number:0{digits}}{MP4}" for number in range(1, len(texts) + 1)]
    with _folder(folder):
        for output in outputs:
            require_replaceable(output, WHAT)
        require_writable(outputs[0], WHAT)
        with timer.phase("verify"):
            pipeline = Pipeline.open(root, threads=threads, device_budget=device_budget, on_progress=on_progress)
        noise = _noise(pipeline, latents, options)
        requests = [Request(prompt, latents=noise, **options) for prompt in texts]
        for request in requests:
            pipeline.check(request)  # now, and not after hours, it is said what cannot be made
        for number, (request, output) in enumerate(zip(requests, outputs, strict=True), 1):

            def numbered(phase: str, done: int, total: int, of: str = f"{number}/{len(texts)}") -> None:
                on_progress(f"{of} {phase}", done, total)

            made.append(_make(pipeline, output, request, latents, numbered, on_note))
            timer.add(made[-1].seconds)
    return VideosReport(made, RunCost.so_far(timer, pipeline.executor))


def _noise(pipeline: Pipeline, latents: Path | None, options: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """What a file holds of initial noise for the videos of these options."""
    if latents is None:
        return None
    return pipeline.load_latents(latents, options.get("shape"), options.get("frames"))


def _make(
    pipeline: Pipeline,
    output: Path,
    request: Request,
    latents: Path | None,
    on_progress: OnProgress,
    on_note: OnNote,
) -> MadeVideo:
    """Generate a video; it is written while it is decoded."""
    timer = Timer()
    shape, fps = pipeline.bundle.shape(request.shape, request.frames), pipeline.bundle.sampling.fps
    size = {"height": shape.height, "width": shape.width, "frames": shape.frames}
    tags, cut = pipeline.tags(request), pipeline.cut(request)
    if latents is not None:
        name = latents.name.encode(errors="backslashreplace").decode()  # a file's name need not be a text
        tags["seed"] = f"latents from {name}"
    with create_video(output, **size, fps=fps, metadata=tags) as video:
        for name, (kept, count) in cut.items():
            on_note(f"{output}: the model reads {kept} of the {count} tokens of the {name.replace('_', ' ')}")
        clean = pipeline.denoise(request, timer, on_progress)
        for chunk in pipeline.decode(clean, timer, on_progress):
            with timer.phase("video"):
                video.write(chunk)
    return MadeVideo(output, request.prompt, shape.frames, timer.seconds, cut)


@contextmanager
def _folder(path: Path) -> Generator[None]:
    """A folder, made if it is not there, and removed again if nothing comes into it."""
    made = not path.exists()
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError("the folder for the videos cannot be made", where=str(path), exit_code=EXIT_IO) from error
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # it is not empty
                path.rmdir()
