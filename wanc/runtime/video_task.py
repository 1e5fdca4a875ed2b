"""The task `text-to-video`: one prompt and one video, or a list of prompts and a folder of videos."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .cost import RunCost
from .destination import STDOUT, require_replaceable
from .directory import Root
from .ending import unfinished
from .errors import EXIT_IO, UserError
from .made_video import MadeVideo, VideoPlan
from .options import VIDEO, taken_limits
from .partial_file import partial_name
from .pipeline import Pipeline
from .progress import OnNote, OnProgress, ignore, ignore_note
from .prompts import read_changes, read_prompts
from .request import Request
from .service import Service
from .suffixes import MP4, suffix_of
from .ticket import FAILED, Ticket
from .timer import Timer, shown_seconds
from .video import WHAT, Appears
from .whole_file import require_writable

FEWEST_DIGITS = 4
AHEAD = 16
"""Videos of a list that are asked for before the first of them is there: more than there are stages."""


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
    changes: Path | None = None,
    stream: bool = False,
    keep_partial: bool = False,
    on_progress: OnProgress = ignore,
    on_note: OnNote = ignore_note,
    **options: Any,
) -> VideoReport:
    """Generate one video into a file, which appears only when it is complete, unless it is asked for otherwise.

    `options` are the other fields of `Request`, and those of `RunLimits`. Raises UserError.
    """
    limits = taken_limits(options)
    appears = _appears(output, stream=stream, keep_partial=keep_partial)
    if changes is not None:
        options["changes"] = read_changes(changes)
    if appears != "streamed":
        require_writable(output, WHAT)
    if appears == "partial":
        require_replaceable(partial_name(output), WHAT)
    timer = Timer()
    with timer.phase("verify"):
        pipeline = Pipeline.open(root, on_progress=on_progress, **limits)
    noise = _noise(pipeline, latents, options)
    plan = VideoPlan.of(pipeline, output, Request(prompt, latents=noise, **options), latents, appears)
    made = _make(pipeline, plan, on_progress, on_note)
    timer.add(made.seconds)
    return VideoReport(made, RunCost.so_far(timer, pipeline.executor))


def run_videos(
    root: Root,
    folder: Path,
    *,
    prompts: Path,
    latents: Path | None = None,
    changes: Path | None = None,
    stream: bool = False,
    keep_partial: bool = False,
    on_progress: OnProgress = ignore,
    on_note: OnNote = ignore_note,
    **options: Any,
) -> VideosReport:
    """Generate a video for each prompt in a text file: `0001.mp4`, `0002.mp4`, … in a folder, made if it is not there.

    Each is the video that the prompt alone would give with the same options, seed included, and appears when it is
    complete: those that are stay whatever happens to the next. Raises UserError.
    """
    limits = taken_limits(options)
    if given := [name for name, value in (("--stream", stream), ("--keep-partial", keep_partial)) if value]:
        raise UserError(f"{given[0]} is for a single video", hint="give --prompt in place of --prompts")
    if changes is not None:
        options["changes"] = read_changes(changes)
    texts, timer = read_prompts(prompts), Timer()
    digits = max(FEWEST_DIGITS, len(str(len(texts))))
    outputs = [folder / f"{number:0{digits}}{MP4}" for number in range(1, len(texts) + 1)]
    with _folder(folder):
        for output in outputs:
            require_replaceable(output, WHAT)
        require_writable(outputs[0], WHAT)
        with timer.phase("verify"):
            pipeline = Pipeline.open(root, on_progress=on_progress, **limits)
        noise = _noise(pipeline, latents, options)
        requests = [Request(prompt, latents=noise, **options) for prompt in texts]
        for request in requests:
            pipeline.check(request)  # now, and not after hours, it is said what cannot be made
        plans = (VideoPlan.of(pipeline, *entry, latents) for entry in zip(outputs, requests, strict=True))
        # Where they would close each other's engines, they take turns.
        with Service(pipeline, side_by_side=pipeline.fits_side_by_side(requests[0])) as service:
            made = _make_all(service, plans, len(texts), on_progress, on_note)
        for entry in made:
            timer.add(entry.seconds)
    return VideosReport(made, RunCost.so_far(timer, pipeline.executor))


def _appears(output: Path, *, stream: bool, keep_partial: bool) -> Appears:
    """Raises UserError where it cannot appear so."""
    if stream and keep_partial:
        raise UserError("--stream and --keep-partial exclude each other", hint="give one of them")
    if stream and output != STDOUT:
        raise UserError(
            "--stream writes to standard output alone", where=str(output), hint="write `-o -`, or take --keep-partial"
        )
    if keep_partial and (output == STDOUT or suffix_of(output, VIDEO) != MP4):
        raise UserError(f"--keep-partial is for an {MP4}", where=str(output), hint="name it out.mp4")
    return "streamed" if stream else "partial" if keep_partial else "whole"


def _noise(pipeline: Pipeline, latents: Path | None, options: Mapping[str, Any]) -> NDArray[np.float32] | None:
    """What a file holds of initial noise for the videos of these options."""
    if latents is None:
        return None
    return pipeline.load_latents(latents, options.get("shape"), options.get("frames"))


def _make(pipeline: Pipeline, plan: VideoPlan, on_progress: OnProgress, on_note: OnNote) -> MadeVideo:
    """Generate a video; it is written while it is decoded."""
    timer = Timer()
    with plan.create() as video:
        plan.tell_cuts(on_note)
        with pipeline.frames(plan.request, timer, on_progress) as frames:
            for chunk in frames:
                with timer.phase("video"):
                    video.write(chunk)
    return plan.made(timer)


def _make_all(
    service: Service, plans: Iterable[VideoPlan], count: int, on_progress: OnProgress, on_note: OnNote
) -> list[MadeVideo]:
    """Generate videos in turn, each while others are decoded and written. What stands behind one that fails is not
    made; what stands before it is.
    """
    made: list[MadeVideo] = []
    waiting: deque[Ticket[MadeVideo]] = deque()
    failed = Event()

    def stop_behind(ticket: Ticket[MadeVideo]) -> None:
        if ticket.outcome == FAILED:
            failed.set()
            there = tuple(waiting)
            for later in there[there.index(ticket) + 1 :] if ticket in there else there:
                later.cancel()

    for number, plan in enumerate(plans, 1):
        if len(waiting) == AHEAD:
            made.append(waiting.popleft().result())
        plan.tell_cuts(on_note)
        told = partial(_told, on_progress, f"{number}/{count}", is_last=number == count)
        ticket = service.carry_out(plan, on_progress=told)
        waiting.append(ticket)
        ticket.add_done_callback(stop_behind)
        if failed.is_set():
            ticket.cancel()
            break
    return made + [ticket.result() for ticket in waiting]


def _told(on_progress: OnProgress, video: str, phase: str, done: int, total: int, *, is_last: bool) -> None:
    """What one bar shows of many videos: the stage that takes longest, and then what is left of the last one."""
    if phase == "denoise" or (is_last and phase == "decode"):
        on_progress(f"{video} {phase}", done, total)


@contextmanager
def _folder(path: Path) -> Generator[None]:
    """A folder, made if it is not there, and removed again if nothing comes into it."""
    made = not path.exists()
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError("the folder for the videos cannot be made", where=str(path), exit_code=EXIT_IO) from error
    try:
        if made:
            unfinished.add(path)
        yield
    finally:
        if made:
            with suppress(OSError):  # it is not empty
                path.rmdir()
            unfinished.discard(path)
