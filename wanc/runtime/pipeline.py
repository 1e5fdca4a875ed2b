"""Text to video from a bundle: encode, denoise, decode."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import replace
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import Any, TypeAlias, Unpack

import numpy as np
from numpy.typing import NDArray

from .ahead import made_ahead
from .budget import COMPONENTS
from .bundle_executor import executor_of
from .causal import CausalVideo
from .causal_requests import CausalRequests, changes_of, latent_frames
from .decode import decode, decode_tiled, scratch_bytes
from .denoise import Expert, denoise
from .directory import Root
from .encode import TextStates, encode_prompt
from .errors import TargetError, UserError
from .expected import chunks, encodings, steps
from .model import DECODER, HIGH, Model
from .noise import initial_noise, load_latents
from .options import RunLimits
from .parts import Parts
from .phase_rooms import PhaseRooms
from .progress import OnProgress, ignore
from .prompts import require_readable
from .request import Cut, Frames, Request, Result
from .scratch import require_room
from .shared_room import SharedRoom
from .solvers.base import NoiseOf, Solver
from .solvers.create import create_solver
from .text import clean_prompt
from .text_bundle import open_text
from .tiling import Tiling
from .timer import Timer
from .uses import GraphUse
from .version import VERSION
from .video_bundle import Sampling, Shape, VideoBundle

PIECES_AHEAD = 2
"""Chunks of a causal video that are denoised and not decoded yet, however long it is."""
Start: TypeAlias = tuple[Solver, NDArray[np.float32]]
"""A solver with its schedule, and the noise to begin with."""
Texts: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]


class Pipeline:
    """A bundle, ready to generate. Engines are opened when first used, and stay open as far as its budget allows."""

    def __init__(self, bundle: VideoBundle, **limits: Unpack[RunLimits]) -> None:
        self.bundle = bundle
        thrifty = {DECODER} if bundle.tilings else ()
        self.executor = executor_of(bundle, planned=bundle.memory, thrifty=thrifty, **limits)
        # They are the same for every request.
        self._interfaces, self._tables = cache(bundle.interfaces), cache(bundle.tables)
        self._tokenizer, self._table = open_text(bundle)
        self._texts = TextStates(self._encode)
        self._rooms = PhaseRooms(bundle, self.executor)

    @classmethod
    def open(cls, root: Root, *, on_progress: OnProgress = ignore, **limits: Unpack[RunLimits]) -> Pipeline:
        """Verify a bundle and make it ready.

        Raises VerificationError or BundleError where the bundle is not exactly what was sealed, and TargetError where
        it does not fit this machine. `threads` is the recipe's unless given; 0 means every core, and more than there
        are is a UserError. So is `device_budget`, the recipe's unless given, where the bundle was not planned for one.
        `workers` and `worker_timeout` are the `transport` and the time-out of `Executor`.
        """
        return cls(VideoBundle.open(root, on_progress=on_progress), **limits)

    def generate(self, prompt: str, *, on_progress: OnProgress = ignore, **options: Any) -> Result:
        """Make a whole video in memory; the options are the fields of `Request`. Raises UserError."""
        request, timer = Request(prompt, **options), Timer()
        latents = self.denoise(request, timer, on_progress)
        with self.room(request):
            return self.result(request, [latents], self.decode([latents], timer, on_progress), timer)

    def result(
        self, request: Request, latents: Sequence[NDArray[np.float32]], chunks: Iterable[Frames], timer: Timer
    ) -> Result:
        """What was made, in arrays that are the caller's own. `chunks` are all frames of the video, in their order;
        `latents`, in pieces, are read when these are there.
        """
        shape = self.bundle.shape(request.shape, request.frames)
        frames, done = np.empty((shape.frames, shape.height, shape.width, 3), np.uint8), 0
        for chunk in chunks:
            frames[done : done + len(chunk)] = chunk
            done += len(chunk)
        fps, tags, cut = self.bundle.sampling.fps, self.tags(request), self.cut(request)
        return Result(frames, np.concatenate(latents, axis=2), timer.seconds, fps, tags, cut)

    def check(self, request: Request) -> None:
        """Raises UserError where the video cannot be made, of its last phase as well: before there is any work."""
        self.check_room(request)
        self.tags(request)

    def check_room(self, request: Request) -> None:
        """Raises UserError where a video has no room in memory, or its tiles have none on disk."""
        shape = self.bundle.shape(request.shape, request.frames)
        if self.bundle.cache is not None:
            self._causal.check_room(shape)
        if (tiling := self.bundle.tiling(shape.height, shape.width)) is not None:
            require_room(scratch_bytes(self.bundle.latent_shape(shape), self.bundle.model, tiling))
        self._rooms.check(shape)
        self.executor.check_room(self._whole_room(request), COMPONENTS["video"])

    def fits_side_by_side(self, request: Request) -> bool:
        """Whether such requests find room in the budget while each is in another phase, and no file is closed."""
        return self._rooms.fit_side_by_side(self.bundle.shape(request.shape, request.frames))

    def tags(self, request: Request) -> dict[str, str]:
        """What a file of the video says about itself: all that it takes to make it again. Raises UserError."""
        sampling, shape = self.bundle.sampling, self.bundle.shape(request.shape, request.frames)
        cut = {f"{name}_cut": f"{kept} of {count} tokens" for name, (kept, count) in self.cut(request).items()}
        return {
            **self._prompts(request),
            **self._changed_prompts(request),
            **cut,
            "seed": str(request.seed) if request.latents is None else "latents",
            "steps": str(self._solver(request).steps),
            "shape": f"{shape.name}, {shape.width}x{shape.height}",
            "frames": str(shape.frames),
            "solver": f"{sampling.solver}, shift {sampling.shift:g}",
            "guidance": f"high {sampling.guidance_high:g}, low {sampling.guidance_low:g}",
            "bundle": self.bundle.manifest.id,
            "wanc": VERSION,
        }

    def cut(self, request: Request) -> Cut:
        """The texts of a request that are longer than the model reads: tokens kept and in all. Raises UserError."""
        kept = self.bundle.model.text_length
        texts = {**self._prompts(request), **self._changed_prompts(request)}
        counts = {name: self._tokenizer.count(clean_prompt(text)) for name, text in texts.items()}
        return {name: (kept, count) for name, count in counts.items() if count > kept}

    def denoise(self, request: Request, timer: Timer, on_progress: OnProgress = ignore) -> NDArray[np.float32]:
        """The clean latents of a request, float32 [1, channels, latent frames, latent height, latent width]."""
        if self.bundle.cache is not None:
            self.check_room(request)
            texts = self.encode(request, timer, on_progress)
            with self.room(request):
                return np.concatenate(list(self.chunks(request, texts, timer, on_progress)), axis=2)
        start = self.start(request)
        uses = [*encodings(len(self._prompts(request))), *self._steps(start[0])]
        with self.executor.expect(uses):
            return self.sample(start, self.encode(request, timer, on_progress), timer, on_progress)

    def start(self, request: Request) -> Start:
        """Where a request begins. Raises UserError for one that cannot be made."""
        self.check_room(request)
        return self._solver(request), self._start(request, self.bundle.shape(request.shape, request.frames))

    def room(self, request: Request) -> AbstractContextManager[None]:
        """Memory for what a video of a causal model keeps: whoever makes or decodes its chunks is in it meanwhile. It
        is waited for where others have it. Those of other models have room phase by phase.
        """
        if self.bundle.cache is None:
            return nullcontext()
        return SharedRoom(partial(self.executor.reserve, self._whole_room(request), COMPONENTS["video"]))

    def _whole_room(self, request: Request) -> int:
        """Its bytes: those that are kept, or as they were planned, with engines' own; of a prompt that changes on the
        way the encoder's as well.
        """
        shape = self.bundle.shape(request.shape, request.frames)
        if self.bundle.cache is None:
            return 0
        if self.bundle.memory is None:
            return sum(self._causal.session_bytes(shape).values())
        text = self._rooms.values("text", self.bundle.shapes[0]) if request.changes else 0
        return text + self._rooms.values("video", shape)

    def chunks(
        self, request: Request, texts: Texts, timer: Timer, on_progress: OnProgress = ignore
    ) -> Iterator[NDArray[np.float32]]:
        """The clean latents of a request, piece by piece: all at once, but of a causal model, for whose videos there
        has to be `room`. Raises TargetError.
        """
        if self.bundle.cache is None:
            yield self.sample(self.start(request), texts, timer, on_progress)
            return
        with self.executor.expect(self._steps(self._solver(request))):  # every chunk uses the same again
            yield from self._causal.chunks(request, texts, timer, on_progress)

    def latent_frames(self, request: Request) -> int:
        """How many a video of this request has. Raises UserError."""
        return latent_frames(self.bundle, request)

    @contextmanager
    def frames(self, request: Request, timer: Timer, on_progress: OnProgress = ignore) -> Generator[Iterator[Frames]]:
        """For the length of a `with`: the frames of a request, latent frame by latent frame, as they are made.

        Of a causal model chunks are denoised in another thread while those before them are decoded.
        """
        count = self.latent_frames(request)
        if self.bundle.cache is None:
            clean = self.denoise(request, timer, on_progress)
            yield self.decode([clean], timer, on_progress)
            return
        self.check_room(request)
        pieces = self.chunks(request, self.encode(request, timer, on_progress), timer, on_progress)
        with self.room(request), made_ahead(pieces, PIECES_AHEAD) as ahead:
            yield self.decode(ahead, timer, frames=count)

    def video(self, request: Request, texts: Texts) -> CausalVideo:
        """A video of a causal model that is made chunk by chunk: several may be on their way. Raises UserError."""
        return self._causal.video(request, texts)

    @property
    def _causal(self) -> CausalRequests:
        """Raises UserError for a bundle of another model."""
        return CausalRequests(
            self.bundle, self.executor, self._texts.of, self._start, self._solver, self.expert_at, self.parts
        )

    def work(self, request: Request) -> float:
        """How much there is to compute for it: values of latents, of all steps. Raises what `start` raises."""
        shape = self.bundle.shape(request.shape, request.frames)
        if request.latents is not None:
            self._start(request, shape)
        return float(self._solver(request).steps * prod(self.bundle.latent_shape(shape)))

    def encode(self, request: Request, timer: Timer, on_progress: OnProgress = ignore) -> Texts:
        """The states of the prompt and of the negative one, each float32 [1, text_length, width]. Raises UserError."""
        texts = self._prompts(request)
        uses = encodings(len(texts))
        with timer.phase("text"), self._rooms.reserve("text", self.bundle.shapes[0]), self.executor.expect(uses):
            on_progress("text", 0, len(texts))
            text = self._texts.of(texts["prompt"])
            negative = self._texts.of(texts["negative_prompt"]) if "negative_prompt" in texts else text
            on_progress("text", len(texts), len(texts))
        return text, negative

    def text_states(self, prompt: str) -> NDArray[np.float32]:
        """What the text encoder makes of one prompt, float32 [1, text_length, width]. Raises TargetError."""
        with self._rooms.reserve("text", self.bundle.shapes[0]):
            return self._texts.of(prompt)

    def sample(
        self,
        start: Start,
        texts: Texts,
        timer: Timer,
        on_progress: OnProgress = ignore,
        on_latents: Callable[[NDArray[np.float32]], object] = lambda _: None,
    ) -> NDArray[np.float32]:
        """The clean latents, shaped as those at the start; `on_latents` is told of those behind each step.

        Raises TargetError.
        """
        solver, latents = start
        room = self._rooms.reserve("denoise", self._shape_of(latents))
        with timer.phase("denoise"), room, self.executor.expect([*self._steps(solver), *chunks(latents.shape[2])]):
            empty = self.executor.empty
            return denoise(self.parts, solver, self.expert_at, latents, *texts, on_progress, empty, on_latents)

    def decode(
        self,
        latents: Iterable[NDArray[np.float32]],
        timer: Timer,
        on_progress: OnProgress = ignore,
        *,
        frames: int | None = None,
    ) -> Iterator[Frames]:
        """The frames of clean latents, which come piece by piece, latent frame by latent frame: uint8 [frames, height,
        width, 3].

        Of `frames` latent frames in all, those of the first piece unless it is said, progress counts those that are
        done; where pictures are decoded in tiles, those of all tiles.
        """
        pieces = iter(latents)
        first = next(pieces)
        shape = self._shape_of(first, frames)
        tiling = self.bundle.tiling(shape.height, shape.width)
        if tiling is not None:
            return self._decode_tiled(np.concatenate([first, *pieces], axis=2), shape, tiling, timer, on_progress)
        return self._decode(itertools.chain([first], pieces), shape, timer, on_progress)

    def _decode(
        self, pieces: Iterable[NDArray[np.float32]], shape: Shape, timer: Timer, on_progress: OnProgress
    ) -> Iterator[Frames]:
        model, total, done = self.bundle.model, self.bundle.latent_shape(shape)[2], 0
        waiting: deque[NDArray[np.float32]] = deque()
        decoded = decode(_taken(waiting), model.latent_mean, model.latent_std, self.executor, self._interfaces(DECODER))
        on_progress("decode", 0, total)
        with closing(decoded), self._rooms.reserve("decode", shape), self.executor.expect(chunks(total)):
            for piece in pieces:  # whoever makes them takes that time
                waiting.append(piece)
                for _ in range(piece.shape[2]):
                    with timer.phase("decode"):
                        chunk = next(decoded)
                    yield self._expected(chunk, shape, is_first=not done)
                    done += 1
                    on_progress("decode", done, total)

    def _decode_tiled(
        self, latents: NDArray[np.float32], shape: Shape, tiling: Tiling, timer: Timer, on_progress: OnProgress
    ) -> Iterator[Frames]:
        total, tiles = latents.shape[2], tiling.count(shape.height, shape.width)
        work = total * tiles
        told = partial(on_progress, "decode")
        decoded = decode_tiled(
            latents, self.bundle.model, tiling, self.executor, self._interfaces(DECODER), lambda done: told(done, work)
        )
        told(0, work)
        with closing(decoded), self._rooms.reserve("decode", shape), self.executor.expect(chunks(total) * tiles):
            for done in range(total):
                with timer.phase("decode"):
                    chunk = next(decoded)
                yield self._expected(chunk, shape, is_first=not done)

    def _expected(self, chunk: Frames, shape: Shape, *, is_first: bool) -> Frames:
        """Raises TargetError for frames that are not of this video."""
        wanted = (1 if is_first else self.bundle.model.temporal_stride, shape.height, shape.width, 3)
        if chunk.shape != wanted:
            raise TargetError(f"an engine gives frames of {list(chunk.shape)}, and {list(wanted)} was expected")
        return chunk

    def _shape_of(self, latents: NDArray[np.float32], count: int | None = None) -> Shape:
        """Of the video that they become, of so many latent frames unless it is all of them."""
        model = self.bundle.model
        height, width = (size * model.spatial_stride for size in latents.shape[3:])
        frames = ((count or latents.shape[2]) - 1) * model.temporal_stride + 1
        return replace(self._rooms.planned(height, width), frames=frames)

    def _steps(self, solver: Solver) -> list[GraphUse]:
        return list(steps(solver.timesteps.tolist(), self.expert_at, self.parts))

    def _solver(self, request: Request, noise_of: NoiseOf | None = None) -> Solver:
        sampling = self.bundle.sampling
        if request.steps is not None:
            if sampling.timesteps is not None:
                raise UserError(
                    "this bundle samples at fixed timesteps; the number of steps cannot be chosen",
                    hint=f"its timesteps are {', '.join(f'{t:g}' for t in sampling.timesteps)}",
                )
            sampling = replace(sampling, steps=request.steps)
        return create_solver(
            sampling.solver,
            shift=sampling.shift,
            steps=sampling.steps,
            timesteps=sampling.timesteps,
            empty=self.executor.empty,
            noise_of=noise_of,
        )

    def load_latents(self, path: Path, shape: str | None = None, frames: int | None = None) -> NDArray[np.float32]:
        """Initial noise from a `.npy` file, for a video of this shape and number of frames.

        What the file says that it holds is compared with what is needed before it is read. Raises UserError.
        """
        size = self.bundle.shape(shape, frames)
        return load_latents(path, lambda dtype, sizes: self._check_latents(dtype, sizes, size))

    def _check_latents(self, dtype: str, sizes: tuple[int, ...], shape: Shape) -> None:
        expected = self.bundle.latent_shape(shape)
        if sizes != expected or dtype != "float32":
            raise UserError(
                f"the latents are {dtype} {list(sizes)}; "
                f"{shape.width}x{shape.height}, {shape.frames} frames needs float32 {list(expected)}"
            )

    def _start(self, request: Request, shape: Shape) -> NDArray[np.float32]:
        expected = self.bundle.latent_shape(shape)
        if request.latents is None:
            return initial_noise(expected, request.seed, self.executor.empty)
        self._check_latents(request.latents.dtype.name, request.latents.shape, shape)
        if not np.isfinite(request.latents).all():
            raise UserError("the latents hold values that are not finite")
        return request.latents

    def _prompts(self, request: Request) -> dict[str, str]:
        """The prompt and, where the bundle samples with guidance, the negative prompt in force. Raises UserError."""
        texts, sampling = {"prompt": request.prompt}, self.bundle.sampling
        if sampling.is_guided:
            given = request.negative_prompt
            texts["negative_prompt"] = sampling.negative_prompt if given is None else given
        elif request.negative_prompt is not None:
            raise UserError("the negative prompt has no effect: this bundle samples without guidance")
        for name, text in texts.items():
            require_readable(name.replace("_", " "), text)
        return texts

    def _changed_prompts(self, request: Request) -> dict[str, str]:
        return {f"prompt_from_chunk_{chunk}": text for chunk, text in changes_of(self.bundle, request).items()}

    def _encode(self, prompt: str) -> NDArray[np.float32]:
        return encode_prompt(prompt, self._tokenizer, self._table, self.executor, self.executor.empty)

    def parts(self, component: str) -> Parts:
        """The graphs of a component, for the length of one request."""
        return Parts(component, self._interfaces(component), self.executor, self._tables(component))

    def expert_at(self, timestep: float) -> Expert:
        """Who makes the step at a timestep, and with which guidance."""
        return choose_expert(self.bundle.model, self.bundle.sampling, timestep)


def _taken(waiting: deque[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """What waits, up to the last."""
    while waiting:
        yield waiting.popleft()


def choose_expert(model: Model, sampling: Sampling, timestep: float) -> Expert:
    """The expert of a timestep, with its guidance."""
    component = model.component_at(timestep)
    return Expert(component, sampling.guidance_high if component == HIGH else sampling.guidance_low)
