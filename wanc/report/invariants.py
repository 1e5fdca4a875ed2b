"""What has to be exact: a bundle against itself, in whatever pieces and within whatever memory it works."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wanc.report.chunks import request_of
from wanc.report.document import Invariant
from wanc.report.free_run import FreeRun, causal_latents, decoded_frames, free_run
from wanc.report.reference import ReferenceClip, ReferenceRecord
from wanc.report.subject import Subject, close_engines
from wanc.report.unfinished import Measurements
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.timer import Timer

Array = np.ndarray[Any, Any]
PARTITIONED, FLOAT32 = "partitioned", "fp32"


@dataclass(frozen=True)
class ExactCheck:
    """`find` says whether it holds of a bundle whose video of a clip is known; None where that cannot be said.

    The other texts tell what it found.
    """

    name: str
    find: Callable[[Subject, ReferenceClip, FreeRun], bool | None]
    holds: str
    fails: str
    absent: str = ""

    def checked(self, subject: Subject, clip: ReferenceClip, run: FreeRun, kept: Measurements) -> Invariant:
        """Raises what executing the bundle raises."""

        def find() -> Mapping[str, Array]:
            found = self.find(subject, clip, run)
            return {"holds": np.array([] if found is None else [found], bool)}

        found: list[bool] = kept.arrays(f"exact-{self.name.replace(' ', '-')}", find)["holds"].tolist()
        detail = (self.holds if found[0] else self.fails) if found else self.absent
        return Invariant(name=self.name, holds=found[0] if found else None, detail=detail)


def _again(subject: Subject, clip: ReferenceClip, run: FreeRun) -> bool:
    return _is_same(free_run(subject.pipeline, clip), run)


def _within_budgets(subject: Subject, clip: ReferenceClip, run: FreeRun) -> bool | None:
    """In the least memory that it was planned for, where engines come and go, and in half of what lies above that."""
    opened = subject.pipeline
    if (memory := opened.bundle.memory) is None:
        return None
    phases = memory.shapes[str(request_of(opened, clip).shape)].values()
    least, whole = max(phase.least for phase in phases), max(phase.whole for phase in phases)
    subject.close()
    for budget in sorted({least, (least + max(least, whole)) // 2}):
        pipeline = Pipeline(opened.bundle, threads=opened.bundle.threads, device_budget=str(budget))
        found = free_run(pipeline, clip)
        close_engines(pipeline)
        if not _is_same(found, run):
            return False
    return True


def _streamed(subject: Subject, _clip: ReferenceClip, run: FreeRun) -> bool | None:
    """A frame that was shown stays as it is, whatever comes behind it."""
    latents = run.latents[-1]
    half = latents.shape[2] // 2
    if not half:
        return None
    frames = decoded_frames(subject.pipeline, latents[:, :, :half])
    return np.array_equal(frames, run.frames[: len(frames)])


def _ahead(subject: Subject, clip: ReferenceClip, run: FreeRun) -> bool:
    """As `wanc run` makes it: later chunks in another thread, while earlier ones are decoded."""
    with subject.pipeline.frames(request_of(subject.pipeline, clip), Timer()) as frames:
        return np.array_equal(np.concatenate([chunk.copy() for chunk in frames]), run.frames)


def _in_turn(subject: Subject, clip: ReferenceClip, run: FreeRun) -> bool:
    """Beside a video of another seed, whose chunks are made between those of this one."""
    pipeline, request = subject.pipeline, request_of(subject.pipeline, clip)
    texts, frames = pipeline.encode(request, Timer()), pipeline.latent_frames(request)
    other = pipeline.video(replace(request, seed=clip.seed ^ 1), texts)
    mine = causal_latents(pipeline.video(request, texts), frames, lambda: other.make(other.model.facts.chunk))
    return np.array_equal(mine, run.latents)


OF_ONE = (
    ExactCheck(
        "same again",
        _again,
        "the first clip, made twice, is the same to the bit",
        "the first clip differs when made twice",
    ),
    ExactCheck(
        "every budget",
        _within_budgets,
        "the first clip is the same to the bit in the least memory, and half way to all of it",
        "the first clip differs in less memory",
        "it was not planned within a budget of memory",
    ),
    ExactCheck(
        "streamed",
        _streamed,
        "the first half of the first clip, decoded alone, is that of the whole one, to the bit",
        "the first half of the first clip, decoded alone, differs from that of the whole one",
        "its videos are of one latent frame",
    ),
)
OF_A_CAUSAL = (
    *OF_ONE,
    ExactCheck(
        "made ahead",
        _ahead,
        "the first clip is the same to the bit where chunks are made while earlier ones are decoded",
        "the first clip differs where chunks are made while earlier ones are decoded",
    ),
    ExactCheck(
        "in turn",
        _in_turn,
        "the first clip is the same to the bit where chunks of another video are made between its own",
        "the first clip differs where chunks of another video are made between its own",
    ),
)


def checks_of(record: ReferenceRecord) -> tuple[ExactCheck, ...]:
    """Those of the kind of model that a reference is of."""
    return OF_ONE if record.cache is None else OF_A_CAUSAL


@dataclass(frozen=True)
class BundleVideos:
    """A bundle, and its videos."""

    subject: Subject
    runs: Sequence[FreeRun]


def partitioned(one: BundleVideos, others: Iterable[BundleVideos]) -> Invariant | None:
    """Whether a bundle of several segments makes what one does that is the same but for where it was cut.

    None where it is whole. Segments hand each other float32: where a bundle computes in that, nothing is rounded
    otherwise, and where it does not, nothing exact is demanded.
    """
    facts = one.subject.facts
    if facts.segments == 1:
        return None
    whole = next((other for other in others if _is_the_whole_of(other.subject, one.subject)), None)
    if whole is None:
        return Invariant(name=PARTITIONED, holds=None, detail="the report has no bundle that is this one in one piece")
    is_same = all(_is_same(mine, theirs) for mine, theirs in zip(one.runs, whole.runs, strict=True))
    detail = f"{'every clip is' if is_same else 'clips are not'} the same to the bit as of {whole.subject.name}"
    if is_same or facts.compute == FLOAT32:
        return Invariant(name=PARTITIONED, holds=is_same, detail=f"{detail}, which is in one piece")
    why = f"{detail}: in one piece {facts.compute} goes on where segments hand each other float32"
    return Invariant(name=PARTITIONED, holds=None, detail=why)


def _is_the_whole_of(whole: Subject, cut: Subject) -> bool:
    return whole.facts.segments == 1 and (whole.settings, whole.weights) == (cut.settings, cut.weights)


def _is_same(one: FreeRun, other: FreeRun) -> bool:
    return np.array_equal(one.latents, other.latents) and np.array_equal(one.frames, other.frames)
