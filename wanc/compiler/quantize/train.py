"""The train stage: one quantised denoiser learns, code by code, to give what the float one gives (QAT).

It starts from what the quantize stage decided, and gives what that gives: a program with Q/DQ, codes, a QuantTable and
probes. Only the codes and their scales are other ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wanc.artifacts.kept import forget_damaged
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.quantize.causal_clip import lengths_of
from wanc.compiler.quantize.quantize import decisions_file
from wanc.compiler.quantize.texts import RESULT as TEXTS
from wanc.compiler.quantize.texts import TENSOR as TEXT
from wanc.compiler.stages.stage import Files, Stage, scratch_of
from wanc.compiler.trajectory import Trajectory, noise_of_video
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.model import HIGH, LOW, Model
from wanc.runtime.safetensors import SafetensorsFile

if TYPE_CHECKING:
    import torch

    from wanc.calibration.decision import Decision
    from wanc.calibration.lessons import Task
    from wanc.calibration.trajectories import Requests

Array = np.ndarray[Any, Any]
CHECKPOINT = "training.safetensors"
# Of the seeds of requests: far from those of calibration, and from each other.
TRAINING_SEED, VALIDATION_SEED = 1_000_000, 2_000_000
THREADS = 4
"""Of PyTorch, on any number of cores: it parts its sums among them, so that every number of threads trains another
model. On two cores, four are as fast as two, and wait for each other more patiently."""


@dataclass(frozen=True)
class Train(Stage):
    """Inputs `program`, `fused`, `exported`, `source` and `texts`. Result: as the quantize stage's.

    `program` has the component quantised, `fused` is the same before that. `shape` is the video size, (height, width,
    frames), that is trained on; `keep` are the recipe's patterns, `requests` and `validation` how many runs are learnt
    from and judged by. The other experts are those of `program`: trained, where their turn has been. Where
    there is a `cache` the model is causal, and a run as long as its clips.
    """

    name: ClassVar[str] = "train"
    tools: ClassVar[tuple[str, ...]] = (
        "torch", "diffusers", "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "ml-dtypes",
    )  # fmt: skip
    resumes: ClassVar[bool] = True

    component: str
    experts: tuple[str, ...]
    scheme: str
    keep: tuple[str, ...]
    trajectory: Trajectory
    shape: tuple[int, int, int]
    seed: int
    learning_rate: float
    rounds: int
    requests: int
    validation: int
    cache: CacheFacts | None = None

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        import torch

        from wanc.calibration.decision import read_decisions, write_decisions
        from wanc.calibration.distill import TrainingPlan, distill
        from wanc.calibration.schemes import SCHEMES
        from wanc.compiler.quantize.trained_component import write_trained

        torch.set_num_threads(THREADS)
        program = Program.read(inputs["program"][FILE])
        assert program.model is not None
        start = read_decisions(inputs["program"][decisions_file(self.component)])
        task = self._task(inputs, replace(program.model, boundary=self.trajectory.boundary), start)
        plan = TrainingPlan(SCHEMES[self.scheme].levels, self.learning_rate, self.rounds, seed=self.seed)
        checkpoint = scratch_of(out) / CHECKPOINT
        forget_damaged(checkpoint)
        outcome = distill(task, plan, checkpoint, progress=progress)
        component, table = write_trained(
            ComponentFiles.read(self.component, {**inputs, "program": inputs["fused"]}),
            inputs["program"],
            outcome.decisions,
            self.keep,
            out,
        )
        table.write(out)
        write_decisions(out / decisions_file(self.component), outcome.decisions)
        replace(program, components={**program.components, self.component: component}).write(out)

    def _task(self, inputs: Mapping[str, Files], model: Model, start: dict[str, Decision]) -> Task:
        from wanc.calibration.causal_sampling import CausalSampling
        from wanc.calibration.lessons import Task
        from wanc.calibration.trajectories import TrajectorySampling

        teachers = [self._teacher(name, inputs) for name in self.experts]
        others = [self._other(name, teacher, inputs) for name, teacher in zip(self.experts, teachers, strict=True)]
        solver = self.trajectory.create_solver()
        high = sum(model.component_at(timestep) == HIGH for timestep in solver.timesteps.tolist())
        guidance = (self.trajectory.guidance(HIGH), self.trajectory.guidance(LOW))
        how = (self.trajectory.create_solver, guidance, high)
        sampling = TrajectorySampling(*how) if self.cache is None else CausalSampling(*how, self.cache)
        texts = SafetensorsFile(inputs["texts"][TEXTS])[TEXT]
        training = self._requests(texts, model, self.requests, TRAINING_SEED)
        validation = self._requests(texts, model, self.validation, VALIDATION_SEED)
        trained = self.experts.index(self.component)
        return Task(teachers, others, trained, start, sampling, training, validation)

    def _teacher(self, component: str, inputs: Mapping[str, Files]) -> torch.nn.Module:
        from wanc.models.wan.causal_sequence import causal_sequence
        from wanc.models.wan.checkpoint import open_located
        from wanc.models.wan.transformer import load, step_module

        found = open_located(inputs["source"], (component,)).components[component]
        config = found.config
        module = step_module(config) if self.cache is None else causal_sequence(config, self.cache)
        return load(module, found.weights, inputs["source"])

    def _other(self, component: str, teacher: torch.nn.Module, inputs: Mapping[str, Files]) -> torch.nn.Module:
        """An expert as it works beside the trained one: as it was decided, if it was, and in float otherwise."""
        import copy

        from wanc.calibration.decision import read_decisions
        from wanc.calibration.fake_quantize import quantize_module
        from wanc.calibration.schemes import SCHEMES

        file = inputs["program"].get(decisions_file(component))
        if file is None or component == self.component:
            return teacher
        other = copy.deepcopy(teacher)
        quantize_module(other, read_decisions(file), levels=SCHEMES[self.scheme].levels)
        return other.requires_grad_(False)

    def _requests(self, texts: Array, model: Model, count: int, first: int) -> Requests:
        import torch

        from wanc.calibration.trajectories import Requests

        height, width, frames = self.shape
        shape = model.latent_shape(height=height, width=width, frames=frames)
        if self.cache is not None:
            shape = (*shape[:2], sum(lengths_of(self.cache, shape[2])), *shape[3:])
        seeds = np.arange(count) + self.seed + first
        noise = np.concatenate([noise_of_video(shape, int(seed), self.cache) for seed in seeds])
        told = texts[[number % (len(texts) - 1) for number in range(count)]]
        negative = np.repeat(texts[-1:], count, axis=0)
        return Requests(*(torch.from_numpy(array.copy()) for array in (noise, told, negative, seeds)))
