"""Many requests over one open bundle: while one is denoised, others are encoded, decoded and written.

`with Service(pipeline) as service: ticket = service.submit("A red circle moves left.", tenant="anna", deadline=60)`
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import MappingProxyType, TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .channel import Channel
from .crew import Crew, Quota, Work
from .denoise import GRAPH
from .errors import UserError
from .events import span
from .flow import Limits, StageQueue
from .made_video import MadeVideo, VideoPlan
from .pipeline import Pipeline, Texts
from .progress import OnProgress, ignore
from .request import Frames, Request, Result
from .ticket import Ticket
from .timer import Timer
from .video import WHAT
from .whole_file import require_writable

TEXT, DENOISE, DECODE, WRITE = "text", "denoise", "decode", "write"
STAGES = (TEXT, DENOISE, DECODE, WRITE)
"""Prompts to text states; noise to latents; latents to frames; frames to a file, or to an array."""
CHUNKS_AHEAD = 2
"""Chunks of frames, of one latent frame each, that are decoded and not yet written, however long a video is."""

T = TypeVar("T")
Latents = NDArray[np.float32]
Deliver = Callable[["_Job[T]", Iterable[Frames]], T]
NONE: Mapping[str, Quota] = MappingProxyType({})


@dataclass
class _Job(Generic[T]):
    """A request, and what has become of it so far."""

    request: Request
    ticket: Ticket[T]
    deliver: Deliver[T]
    on_progress: OnProgress
    keeps_latents: bool
    pieces: Channel[Latents]
    room: AbstractContextManager[None]
    timer: Timer = field(default_factory=Timer)
    texts: Texts | None = None
    frames: Channel[Frames] = field(default_factory=lambda: Channel[Frames](CHUNKS_AHEAD))
    latents: list[Latents] = field(default_factory=list[Latents])
    """The pieces that were decoded, where they are asked for."""

    def let_go(self, _: Ticket[T]) -> None:
        """Nobody needs it any more."""
        self.texts = None
        self.latents.clear()
        self.pieces.close()
        self.frames.close()


class Service:
    """Takes requests until it is closed. At the end of a `with` block it waits until all are done, or, if that ends
    with an error, cancels them.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        quotas: Mapping[str, Quota] = NONE,
        limits: Limits | None = None,
        side_by_side: bool = True,
    ) -> None:
        """`quotas` are those of stages by name, see STAGES; a stage without one has one thread. But where the
        denoiser lies on several devices, as many videos are denoised at once as keep all of them at work.

        Engines of several stages are at work at once, which takes the memory of all. Unless `side_by_side`, they take
        turns, request by request, and only writing goes on beside them.

        Raises UserError for a stage that there is not, and what `Crew` raises.
        """
        if unknown := set(quotas) - set(STAGES):
            raise UserError(f"there is no stage {min(unknown)!r}", hint=f"there are: {', '.join(STAGES)}")
        self._pipeline = pipeline
        self._turn, self._is_side_by_side = nullcontext() if side_by_side else Lock(), side_by_side
        works: Mapping[str, Work[_Job[Any]]] = {
            TEXT: self._encode,
            DENOISE: self._denoise,
            DECODE: self._decode,
            WRITE: self._write,
        }
        # A video has two micro-batches, and begins a step when both of the one before have come through: one more
        # than there are devices keeps all of them at work, and each further video would only be done later.
        devices = pipeline.executor.devices(GRAPH)
        own = {DENOISE: Quota(devices // 2 + 1 if side_by_side else 1), **quotas}
        stages = [(StageQueue(name), own.get(name, Quota()), works[name]) for name in STAGES]
        self._crew = Crew[_Job[Any]](stages, limits or Limits())

    def submit(
        self,
        prompt: str,
        *,
        tenant: str = "",
        deadline: float | None = None,
        on_progress: OnProgress = ignore,
        **options: Any,
    ) -> Ticket[Result]:
        """Ask for a video in memory; the options are the fields of `Request`.

        Of several tenants each gets its share of the work. A request that is not done within `deadline` seconds fails
        with DeadlineExceeded. `on_progress` is called by the threads that do the work.

        Raises UserError for what cannot be made, TooManyRequests where too many wait already.
        """
        request = Request(prompt, **options)
        work = self._pipeline.work(request)
        self._pipeline.check(request)

        def deliver(job: _Job[Result], chunks: Iterable[Frames]) -> Result:
            return self._pipeline.result(request, job.latents, chunks, job.timer)

        return self._submit(request, work, deliver, tenant, deadline, on_progress, keeps_latents=True)

    def write(
        self,
        output: str | Path,
        prompt: str,
        *,
        tenant: str = "",
        deadline: float | None = None,
        on_progress: OnProgress = ignore,
        **options: Any,
    ) -> Ticket[MadeVideo]:
        """Ask for a video in a file, which appears when it is complete, and not at all if the request is cancelled, is
        late or fails; otherwise as `submit`. Raises also what `create_video` raises.
        """
        plan = VideoPlan.of(self._pipeline, Path(output), Request(prompt, **options))
        require_writable(plan.output, WHAT)
        return self.carry_out(plan, tenant=tenant, deadline=deadline, on_progress=on_progress)

    def carry_out(
        self, plan: VideoPlan, *, tenant: str = "", deadline: float | None = None, on_progress: OnProgress = ignore
    ) -> Ticket[MadeVideo]:
        """The same for a plan that was made before. Raises TooManyRequests."""

        def deliver(job: _Job[MadeVideo], chunks: Iterable[Frames]) -> MadeVideo:
            with span(WRITE), plan.create() as video:
                for chunk in chunks:
                    with job.timer.phase("video"):
                        video.write(chunk)
                job.ticket.commit()
            return plan.made(job.timer)

        return self._submit(plan.request, plan.work, deliver, tenant, deadline, on_progress)

    def wait(self) -> None:
        """Until nothing is on its way any more."""
        self._crew.wait()

    def close(self) -> None:
        """Take no more requests, cancel those that are on their way, and wait until nothing works on them any more."""
        self._crew.close()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            self.close()

    def _submit(
        self,
        request: Request,
        work: float,
        deliver: Deliver[T],
        tenant: str,
        deadline: float | None,
        on_progress: OnProgress,
        *,
        keeps_latents: bool = False,
    ) -> Ticket[T]:
        ticket = Ticket[T](deadline)
        pieces = Channel[Latents](CHUNKS_AHEAD if self._is_side_by_side else sys.maxsize)
        job = _Job(request, ticket, deliver, on_progress, keeps_latents, pieces, self._pipeline.room(request))
        ticket.add_done_callback(job.let_go)
        self._crew.submit(job, tenant=tenant, cost=work)
        return ticket

    # The stages

    def _encode(self, job: _Job[Any], _: Callable[[], None]) -> None:
        with self._turn:
            job.texts = self._pipeline.encode(job.request, job.timer, job.on_progress)

    def _denoise(self, job: _Job[Any], hand_on: Callable[[], None]) -> None:
        texts, job.texts = job.texts, None
        if texts is not None:  # else nobody wants it any more
            with self._turn, job.room:
                if self._is_side_by_side:
                    _stays_in_room(job)
                for piece in self._pipeline.chunks(job.request, texts, job.timer, job.on_progress):
                    job.pieces.put(piece)
                    hand_on()  # of a causal model the first ones are decoded while later ones are made
                job.pieces.complete()

    def _decode(self, job: _Job[Any], hand_on: Callable[[], None]) -> None:
        with self._turn, job.room:
            hand_on()  # it is written while it is decoded
            frames = self._pipeline.latent_frames(job.request)
            for chunk in self._pipeline.decode(_noted(job), job.timer, job.on_progress, frames=frames):
                job.frames.put(chunk)
            job.frames.complete()

    def _write(self, job: _Job[Any], _: Callable[[], None]) -> None:
        job.ticket.finish(job.deliver(job, job.frames))


def _stays_in_room(job: _Job[Any]) -> None:
    """Until it is decided: who decodes its last chunks waits for nobody else's room, or two could for each other."""
    stays = ExitStack()
    stays.enter_context(job.room)
    job.ticket.add_done_callback(lambda _: stays.close())


def _noted(job: _Job[Any]) -> Iterator[Latents]:
    """The pieces of a job's latents as they come; what is to be delivered of them is kept."""
    for piece in job.pieces:
        if job.keeps_latents:
            job.latents.append(piece)
        yield piece
