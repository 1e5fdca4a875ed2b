"""The calibrate stage: real denoising trajectories of a recipe, and what a component met on them.

Every clip is sampled as the bundle will sample it: the recipe's solver, steps and guidance, a prompt and a seed of its
own; in the recipe's sizes, or in others that it names for this. What is kept are latents: of every bin of the expert's
timesteps those at one step, which both branches of guidance see; for the decoder those behind the last one. An expert
that works before is executed as the program has it: quantised, if it is by then.
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
from wanc.compiler.quantize.texts import RESULT as TEXTS
from wanc.compiler.quantize.texts import TENSOR as TEXT
from wanc.compiler.stages.stage import Files, Stage, scratch_of
from wanc.compiler.trajectory import Trajectory
from wanc.errors import CheckpointError, UserError
from wanc.runtime import safetensors
from wanc.runtime.denoise import GRAPH, Expert
from wanc.runtime.model import DECODER, HIGH, LOW, Model
from wanc.runtime.noise import initial_noise
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
    the smaller ones that it calibrates at.
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

    def disk_bytes(self, inputs: Mapping[str, Files]) -> int:
        """Every clip lies there twice: in the result, and as what is kept."""
        from wanc.compiler.program.disk_use import FLOAT_BYTES, executed_bytes, with_others

        model, solver = self._model(inputs), self.trajectory.create_solver()
        samples = 0
        for clip in range(self.clips):
            shape = model.latent_shape(**self._size(clip))
            samples += len(self._steps(solver, model, clip)) * FLOAT_BYTES * math.prod(shape)
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
            denoisers = {name: _Denoiser(chain_of(files[name], GRAPH, Path(folder) / name)) for name in files}
            for clip in range(self.clips):
                name = clip_file(clip)
                if not restore(kept / name, out / name):
                    samples = self._sample(clip, model, texts, denoisers)
                    safetensors.write(out / name, samples)
                    keep(kept / name, partial(shutil.copyfile, out / name))
                bar.advance()

    def _experts(self, inputs: Mapping[str, Files]) -> list[str]:
        """Those that work until this component is through."""
        there = Program.read(inputs["program"][FILE]).components
        return [name for name in ((HIGH,) if self.component == HIGH else (HIGH, LOW)) if name in there]

    def _model(self, inputs: Mapping[str, Files]) -> Model:
        program = Program.read(inputs["program"][FILE])
        assert program.model is not None
        return replace(program.model, boundary=self.trajectory.boundary)

    def _size(self, clip: int) -> dict[str, int]:
        return dict(zip(("height", "width", "frames"), self.shapes[clip % len(self.shapes)], strict=True))

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
            component = model.component_at(timestep)
            expert = Expert(component, self.trajectory.guidance(component))
            text, negative = texts[prompt][None], texts[-1][None]
            velocity = expert.velocity(denoisers[component], latents, timestep, text, negative)
            latents = solver.step(velocity, latents)
            if not np.isfinite(latents).all():
                raise CheckpointError(
                    f"{component}: the latents of clip {clip} are not finite at timestep {timestep:g}"
                )
        timesteps = np.append(solver.timesteps, END)[wanted].astype(np.float32)
        return {LATENTS: np.stack(kept), TIMESTEPS: timesteps, PROMPT: np.array([prompt], np.int64)}

    def _steps(self, solver: Solver, model: Model, clip: int) -> list[int]:
        """The steps that are kept: one of each bin, at random; of the decoder, what stands behind the last one."""
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
        random = np.random.default_rng([self.seed, clip])
        return [int(random.choice(steps)) for steps in np.array_split(own, min(self.timestep_bins, len(own)))]


@dataclass(frozen=True)
class _Denoiser:
    """An expert in place of the runtime's parts: its one graph, branch after branch."""

    chain: Chain

    def run_branches(self, graph: str, given: Mapping[str, Mapping[str, Array]]) -> list[dict[str, Value]]:
        assert graph == GRAPH
        return [as_values(outputs) for outputs in self.chain.run(list(given.values()))]


def clip_file(clip: int) -> str:
    """What the samples of a clip are called."""
    return f"clip-{clip:04}.safetensors"
