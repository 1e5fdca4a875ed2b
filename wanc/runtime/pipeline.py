"""Text to video from a bundle: encode, denoise, decode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import read_array
from .decode import COMPONENT as DECODER
from .decode import decode
from .denoise import Expert, denoise
from .embeddings import EmbeddingTable
from .encode import encode_prompt
from .errors import UserError
from .executor import Executor
from .interface import InputError
from .model import HIGH, Model
from .noise import initial_noise
from .parts import Parts
from .progress import ProgressBar
from .solvers.base import Solver
from .solvers.create import create_solver
from .text import Tokenizer
from .timer import Timer
from .video_bundle import Sampling, Shape, VideoBundle

EMBEDDING_TENSOR = "embedding"
Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Request:
    """What to make. Unset fields take the recipe's values; `latents` replaces the seeded noise."""

    prompt: str
    negative_prompt: str | None = None
    seed: int = 0
    steps: int | None = None
    shape: str | None = None
    frames: int | None = None
    latents: NDArray[np.float32] | None = None


@dataclass
class Result:
    """What was made: frames uint8 [frames, height, width, 3], the final latents, and seconds by phase."""

    frames: Frames
    latents: NDArray[np.float32]
    seconds: dict[str, float]


class Pipeline:
    """A bundle, ready to generate. Engines are opened when first used and stay open."""

    def __init__(self, bundle: VideoBundle, *, threads: int | None = None, progress: bool = False) -> None:
        self.bundle = bundle
        self.executor = Executor(bundle.root, bundle.engines, threads=bundle.threads if threads is None else threads)
        self._progress = progress
        # They are the same for every request.
        self._interfaces, self._tables = cache(bundle.interfaces), cache(bundle.tables)
        self._tokenizer = Tokenizer.open(bundle.root / "tokenizer", bundle.model.text_length)
        self._table = EmbeddingTable.open(bundle.embedding, EMBEDDING_TENSOR)

    @classmethod
    def open(cls, root: Path, *, threads: int | None = None, progress: bool = False) -> Pipeline:
        """Verify a bundle and make it ready.

        Raises VerificationError or BundleError where the bundle is not exactly what was sealed, and TargetError where
        it does not fit this machine. `threads` is the recipe's unless given; 0 means every core.
        """
        return cls(VideoBundle.open(root), threads=threads, progress=progress)

    def generate(self, prompt: str, **options: Any) -> Result:
        """Make a whole video in memory; the options are the fields of `Request`. Raises UserError."""
        request = Request(prompt, **options)
        timer = Timer()
        latents = self.denoise(request, timer)
        frames = np.concatenate(list(self.decode(latents, timer)))
        return Result(frames, latents, timer.seconds)

    def denoise(self, request: Request, timer: Timer) -> NDArray[np.float32]:
        """The clean latents of a request, float32 [1, channels, latent frames, latent height, latent width]."""
        shape = self.bundle.shape(request.shape, request.frames)
        solver = self._solver(request)
        latents = self._start(request, shape)
        sampling = self.bundle.sampling
        negative_prompt = sampling.negative_prompt if request.negative_prompt is None else request.negative_prompt
        with timer.phase("text"):
            text = self._encode(request.prompt)
            negative = self._encode(negative_prompt) if sampling.is_guided else text
        with timer.phase("denoise"), ProgressBar("denoise", solver.steps, enabled=self._progress) as bar:
            return denoise(self._parts, solver, self._expert, latents, text, negative, bar.advance)

    def decode(self, latents: NDArray[np.float32], timer: Timer) -> Iterator[Frames]:
        """The frames of clean latents, chunk by chunk: uint8 [frames, height, width, 3]."""
        model = self.bundle.model
        chunks = decode(latents, model.latent_mean, model.latent_std, self.executor, self._interfaces(DECODER))
        with ProgressBar("decode", latents.shape[2], enabled=self._progress) as bar:
            while True:
                with timer.phase("decode"):
                    chunk = next(chunks, None)
                if chunk is None:
                    return
                bar.advance()
                yield chunk

    def _solver(self, request: Request) -> Solver:
        sampling = self.bundle.sampling
        if request.steps is not None:
            if sampling.timesteps is not None:
                raise UserError(
                    "this bundle samples at fixed timesteps; the number of steps cannot be chosen",
                    hint=f"its timesteps are {', '.join(f'{t:g}' for t in sampling.timesteps)}",
                )
            sampling = replace(sampling, steps=request.steps)
        return create_solver(sampling.solver, shift=sampling.shift, steps=sampling.steps, timesteps=sampling.timesteps)

    def _start(self, request: Request, shape: Shape) -> NDArray[np.float32]:
        expected = self.bundle.latent_shape(shape)
        if request.latents is None:
            return initial_noise(expected, request.seed)
        if request.latents.shape != expected or request.latents.dtype != np.float32:
            raise UserError(
                f"the latents are {request.latents.dtype} {list(request.latents.shape)}; "
                f"{shape.width}x{shape.height}, {shape.frames} frames needs float32 {list(expected)}"
            )
        if not np.isfinite(request.latents).all():
            raise UserError("the latents hold values that are not finite")
        return request.latents

    def _encode(self, prompt: str) -> NDArray[np.float32]:
        try:
            prompt.encode()
        except UnicodeEncodeError as error:  # bytes of a command line that are not UTF-8 arrive as lone surrogates
            raise UserError("the prompt is not valid Unicode") from error
        return encode_prompt(prompt, self._tokenizer, self._table, self.executor)

    def _parts(self, component: str) -> Parts:
        return Parts(component, self._interfaces(component), self.executor, self._tables(component))

    def _expert(self, timestep: float) -> Expert:
        return choose_expert(self.bundle.model, self.bundle.sampling, timestep)


def choose_expert(model: Model, sampling: Sampling, timestep: float) -> Expert:
    """The expert of a timestep, with its guidance."""
    component = model.component_at(timestep)
    return Expert(component, sampling.guidance_high if component == HIGH else sampling.guidance_low)


def load_latents(path: Path) -> NDArray[np.float32]:
    """Initial noise from a `.npy` file, float32. Raises UserError where it cannot be read."""
    try:
        return read_array(path)
    except InputError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise
        raise UserError("not a .npy file of latents", where=str(path)) from error
