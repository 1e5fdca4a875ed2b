"""The calibrate stage: real denoising trajectories of a recipe, and what a component met on them.

Every clip is sampled as the bundle will sample it: the recipe's solver, steps and guidance, a prompt and a seed of its
own; in the recipe's sizes, or in others that it names for this. What is kept are latents: of every bin of the expert's
timesteps those at one step, which both branches of guidance see; for the decoder those behind the last one. An expert
that works before is executed as the program has it: quantised, if it is by then. Of a causal model that is so for each
chunk, behind which every expert makes a clean pass (`causal_clip`).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wanc.artifacts.kept import keep, restore
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.quantize.causal_clip import CausalClip, lengths_of
from wanc.compiler.quantize.texts import RESULT as TEXTS
from wanc.compiler.quantize.texts import TENSOR as TEXT
from wanc.compiler.stages.stage import Files, Stage, scratch_of
from wanc.compiler.trajectory import Trajectory
from wanc.errors import CheckpointError, TargetError, UserError
from wanc.runtime import safetensors
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.causal import CausalModel, CausalVideo
from wanc.runtime.denoise import GRAPH, Expert
from wanc.runtime.interface import Interface
from wanc.runtime.model import DECODER, HIGH, LOW, Model
from wanc.runtime.noise import chunk_stream, initial_noise
from wanc.runtime.progress import ProgressBar
from wanc.runtime.safetensors import SafetensorsFile
from wanc.runtime.solvers.base import Solver
from wanc.runtime.value import Value, as_values

if TYPE_CHECKING:
    from wanc.compiler.host.chain import Chain

Array = np.ndarray[Any, Any]
LATENTS, TIMESTEPS, PROMPT = "latents", "timesteps", "prompt"
END = 0.0
"""The timestep of what is denoised."""


@dataclass(frozen=True)
class Calibrate(Stage):
    """Inputs `program`, `exported`, `source` and `texts`. Result: a file of samples for each clip.

    Each `clip-<number>.safetensors` holds `latents`, float32 [steps, 1, channels, frames, height, width], `timesteps`,
    float32 [steps], and `prompt`, the row of the texts that it was told, int64 [1]. The last row of the texts is the
    negative prompt. `shapes` are video sizes, (height, width, frames), which clips take in turn: the recipe's own, or
    the smaller ones that it calibrates at. Where there is a `cache` the model is causal, and a file is of passes.
    """

    name: ClassVar[str] = "calibrate"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "ml-dtypes")
    resumes: ClassVar[bool] = True

    component: str
    trajectory: Trajectory
    shapes: tuple[tuple[int, int, int], ...]
    clips: int
    timestep_bins: int
    seed: int
    cache: CacheFacts | None = None

    def disk_bytes(self, inputs: Mapping[str, Files]) -> int:
        """Every clip lies there twice: in the result, and as what is kept."""
        from wanc.compiler.program.disk_use import FLOAT_BYTES, executed_bytes, with_others

        model, solver = self._model(inputs), self.trajectory.create_solver()
        samples = 0
        for clip in range(self.clips):
            latents = FLOAT_BYTES * math.prod(self._latents(model, clip))
            clean = self.cache is not None and self.component != DECODER
            samples += (len(self._steps(solver, model, clip)) + clean) * latents
        experts = [executed_bytes(ComponentFiles.read(name, inputs)) for name in self._experts(inputs)]
        return with_others(sum(experts) + 2 * samples)

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.host.chain import chain_of

        model, kept = self._model(inputs), scratch_of(out)
        texts = SafetensorsFile(inputs["texts"][TEXTS])[TEXT]
        with (
            TemporaryDirectory(dir=out.parent) as folder,
            ProgressBar(f"{self.name} {self.component}", self.clips, enabled=progress) as bar,
        ):
            files = {name: ComponentFiles.read(name, inputs) for name in self._experts(inputs)}
            denoisers = {
                name: _Denoiser(chain_of(one, GRAPH, Path(folder) / name), one.component.interfaces)
                for name, one in files.items()
            }
            sample = self._sample if self.cache is None else partial(self._sample_chunks, self.cache)
            for clip in range(self.clips):
                name = clip_file(clip)
                if not restore(kept / name, out / name):
                    safetensors.write(out / name, sample(clip, model, texts, denoisers))
                    keep(kept / name, partial(shutil.copyfile, out / name))
                bar.advance()

    def _experts(self, inputs: Mapping[str, Files]) -> list[str]:
        """Those that work until this component is through: of a causal model all, because of a first chunk's end."""
        there = Program.read(inputs["program"][FILE]).components
        is_first = self.component == HIGH and self.cache is None
        return [name for name in ((HIGH,) if is_first else (HIGH, LOW)) if name in there]

    def _model(self, inputs: Mapping[str, Files]) -> Model:
        program = Program.read(inputs["program"][FILE])
        assert program.model is not None
        return replace(program.model, boundary=self.trajectory.boundary)

    def _size(self, clip: int) -> dict[str, int]:
        return dict(zip(("height", "width", "frames"), self.shapes[clip % len(self.shapes)], strict=True))

    def _latents(self, model: Model, clip: int) -> tuple[int, ...]:
        """The latents of a clip, which may be longer than the size says where the model is causal."""
        shape = model.latent_shape(**self._size(clip))
        frames = shape[2] if self.cache is None else sum(lengths_of(self.cache, shape[2]))
        return (*shape[:2], frames, *shape[3:])

    def _sample(self, clip: int, model: Model, texts: Array, denoisers: Mapping[str, _Denoiser]) -> dict[str, Array]:
        """One clip, as far as the component works on it: before some of the steps, or behind all."""
        solver, prompt = self.trajectory.create_solver(), clip % (len(texts) - 1)
        wanted = self._steps(solver, model, clip)
        latents = initial_noise(model.latent_shape(**self._size(clip)), self.seed + clip)
        kept: list[Array] = []
        for step, timestep in enumerate([*solver.timesteps.tolist(), END]):
            if step in wanted:
                kept.append(latents)
            if step == wanted[-1]:
                break
            expert = self._expert(model.component_at(timestep))
            text, negative = texts[prompt][None], texts[-1][None]
            velocity = expert.velocity(denoisers[expert.component], latents, timestep, text, negative)
            latents = solver.step(velocity, latents)
            if not np.isfinite(latents).all():
                raise CheckpointError(
                    f"{expert.component}: the latents of clip {clip} are not finite at timestep {timestep:g}"
                )
        timesteps = np.append(solver.timesteps, END)[wanted].astype(np.float32)
        return {LATENTS: np.stack(kept), TIMESTEPS: timesteps, PROMPT: np.array([prompt], np.int64)}

    def _sample_chunks(
        self, cache: CacheFacts, clip: int, model: Model, texts: Array, denoisers: Mapping[str, _Denoiser]
    ) -> dict[str, Array]:
        """One clip of a causal model, to its end: later chunks look back at what all steps have made of a chunk."""
        shape, prompt = self._latents(model, clip), clip % (len(texts) - 1)
        seed, lengths = self.seed + clip, cache.lengths(shape[2])

        def noise_of(chunk: int, frames: int) -> Array:
            return initial_noise((*shape[:2], frames, *shape[3:]), seed, stream=chunk_stream(chunk))

        def solver_of(chunk: int) -> Solver:
            return self.trajectory.create_solver(
                lambda step, size: initial_noise(size, seed, stream=chunk_stream(chunk, step))
            )

        experts, told = [self._expert(name) for name in denoisers], (texts[prompt][None], texts[-1][None])
        video = CausalVideo(
            CausalModel(cache, experts, lambda at: self._expert(model.component_at(at)), denoisers.__getitem__),
            told,
            noise_of,
            solver_of,
        )
        solver, is_decoded = self.trajectory.create_solver(), self.component == DECODER
        steps = [[] if is_decoded else self._steps(solver, model, clip, chunk) for chunk in range(len(lengths))]
        wanted = [solver.timesteps[chosen].astype(np.float32).tolist() for chosen in steps]
        try:
            made = CausalClip.of(video, lengths, self.component, wanted)
        except TargetError as error:
            raise CheckpointError(f"clip {clip}, chunk {video.done}: {error.message}") from error
        if is_decoded:
            end = np.array([END], np.float32)
            return {LATENTS: made.latents[None], TIMESTEPS: end, PROMPT: np.array([prompt], np.int64)}
        return made.arrays(prompt)

    def _expert(self, component: str) -> Expert:
        return Expert(component, self.trajectory.guidance(component))

    def _steps(self, solver: Solver, model: Model, clip: int, *chunk: int) -> list[int]:
        """The steps that are kept, of each chunk if there are some: one of each bin, at random; of the decoder, what
        stands behind the last one.
        """
        if self.component == DECODER:
            return [len(solver.timesteps)]
        own = [
            step
            for step, timestep in enumerate(solver.timesteps.tolist())
            if model.component_at(timestep) == self.component
        ]
        if not own:
            raise UserError(
                f"none of the recipe's timesteps is for {self.component}: there is nothing to calibrate it on",
                hint="choose a sampling in which both experts work, or scheme: none",
            )
        random = np.random.default_rng([self.seed, clip, *chunk])
        return [int(random.choice(steps)) for steps in np.array_split(own, min(self.timestep_bins, len(own)))]


@dataclass(frozen=True)
class _Denoiser:
    """An expert in place of the runtime's parts: its one graph, branch after branch."""

    chain: Chain
    graphs: Mapping[str, Interface]

    def run_branches(self, graph: str, given: Mapping[str, Mapping[str, Array]]) -> list[dict[str, Value]]:
        assert graph == GRAPH
        return [as_values(outputs) for outputs in self.chain.run(list(given.values()))]


def clip_file(clip: int) -> str:
    """What the samples of a clip are called."""
    return f"clip-{clip:04}.safetensors"
