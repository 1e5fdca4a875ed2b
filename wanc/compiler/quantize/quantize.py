"""The quantize stage: one denoiser's Linears in fewer bits, as calibration's samples have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wanc.compiler.host.sample_states import Sample
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.quantize.calibrate import LATENTS, PROMPT, TIMESTEPS
from wanc.compiler.quantize.causal_clip import samples_of_passes
from wanc.compiler.quantize.texts import RESULT as TEXTS
from wanc.compiler.quantize.texts import TENSOR as TEXT
from wanc.compiler.stages.stage import Files, Stage, scratch_of
from wanc.compiler.trajectory import Trajectory
from wanc.runtime.cache_facts import CacheFacts
from wanc.runtime.denoise import TIMESTEP
from wanc.runtime.safetensors import SafetensorsFile, read_header
from wanc.words import AttentionFormat, Observer

if TYPE_CHECKING:
    from wanc.compiler.quantize.component import Samples

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Quantize(Stage):
    """Inputs `program`, `exported`, `source`, `texts` and `samples`. Result: the program with one component quantised.

    Written are its graphs, its codes beside them, `program.json`, its QuantTable and its probes. `scheme`, `observer`,
    `alpha`, `attention` and the rules of what to keep are a recipe's; `trajectory` is how it samples. Where training
    follows, the decisions are written as well. `zeros` are as in `Compile`, which sees no weight that was quantised.
    Where there is a `cache` the model is causal.
    """

    name: ClassVar[str] = "quantize"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "ml-dtypes")
    resumes: ClassVar[bool] = True

    component: str
    scheme: str
    observer: Observer
    alpha: str | float
    keep: tuple[str, ...]
    max_drop_db: float | None
    int8_share: float | None
    trajectory: Trajectory
    is_trained: bool = False
    zeros: tuple[str, ...] | None = None
    attention: AttentionFormat = "float"
    cache: CacheFacts | None = None

    def disk_bytes(self, inputs: Mapping[str, Files]) -> int:
        from wanc.compiler.quantize.quantize_space import denoiser_states, quantize_bytes

        program, files = Program.read(inputs["program"][FILE]), ComponentFiles.read(self.component, inputs)
        assert program.model is not None
        latents = _latents(inputs["samples"], branches=1 + self._is_guided)
        return quantize_bytes(
            files,
            self.scheme,
            self.keep,
            len(latents),
            denoiser_states(files, latents, program.model.text_length),
            measures_effects=self.max_drop_db is not None or self.int8_share is not None,
            is_trained=self.is_trained,
        )

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.quantize.component import Keep, quantize_component
        from wanc.compiler.quantize.decisions import Settings

        program, files = Program.read(inputs["program"][FILE]), ComponentFiles.read(self.component, inputs)
        component, table = quantize_component(
            files,
            self._samples(inputs, files),
            Settings(self.scheme, self.observer, self.alpha, self.attention),
            Keep(self.keep, self.max_drop_db, self.int8_share),
            out,
            scratch_of(out),
            decisions=out / decisions_file(self.component) if self.is_trained else None,
            zeros=self.zeros,
            progress=progress,
        )
        table.write(out)
        replace(program, components={**program.components, self.component: component}).write(out)

    def _samples(self, inputs: Mapping[str, Files], files: ComponentFiles) -> Samples:
        from wanc.compiler.quantize.component import Samples

        clips, texts = inputs["samples"], inputs["texts"]
        if self.cache is None:
            given, weights = zip(*samples_of(clips, texts, self.trajectory, self.component), strict=True)
            return Samples(given, weights)
        step, rows = files.component.interfaces[files.only_graph], SafetensorsFile(texts[TEXTS])[TEXT]
        passes, pasts = samples_of_passes(clips, rows, self.cache, step, is_guided=self._is_guided)
        return Samples(passes, pasts=pasts)

    @property
    def _is_guided(self) -> bool:
        return self.trajectory.guidance(self.component) != 1.0


def decisions_file(component: str) -> str:
    """Where a component's decisions lie beside its program, for training."""
    return f"decisions/{component}.safetensors"


def samples_of(clips: Files, texts: Files, trajectory: Trajectory, component: str) -> list[tuple[Sample, float]]:
    """Every step that was kept, for each branch, and what an error there does to the final latents.

    A step adds its velocity times the noise level that it takes away, and guidance adds g times the conditional
    velocity and 1 - g times the other. The last row of the texts is the negative prompt.
    """
    rows, guidance = SafetensorsFile(texts[TEXTS])[TEXT], trajectory.guidance(component)
    solver = trajectory.create_solver()
    taken = dict(zip(solver.timesteps.tolist(), (solver.sigmas[:-1] - solver.sigmas[1:]).tolist(), strict=True))
    samples: list[tuple[Sample, float]] = []
    for _, path in sorted(clips.items()):
        clip = SafetensorsFile(path)
        branches = {int(clip[PROMPT][0]): guidance} | ({} if guidance == 1.0 else {-1: 1.0 - guidance})
        for step, timestep in enumerate(clip[TIMESTEPS].tolist()):
            for row, factor in branches.items():
                samples.append((partial(_sample, clip, step, rows, row), (factor * taken[timestep]) ** 2))
    return samples


def _latents(clips: Files, *, branches: int) -> list[tuple[int, ...]]:
    """The shape of every sample's latents; headers alone are read."""
    headers = [read_header(path) for _, path in sorted(clips.items())]
    whole = [header[LATENTS].shape for header in headers if LATENTS in header]
    passes = [one.shape for header in headers for name, one in header.items() if name.endswith(f"/{LATENTS}")]
    return [*(shape[1:] for shape in whole for _ in range(branches * shape[0])), *branches * passes]


def _sample(clip: Mapping[str, Array], step: int, texts: Array, row: int) -> dict[str, Array]:
    return {
        "latents": clip[LATENTS][step],
        TIMESTEP: clip[TIMESTEPS][step : step + 1],
        "text": texts[row][None],
    }
