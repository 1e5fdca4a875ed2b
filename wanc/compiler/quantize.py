"""The quantize stage: one denoiser's Linears in fewer bits, as calibration's samples have it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from wanc.calibration.thresholds import Method
from wanc.compiler.calibrate import LATENTS, PROMPT, TIMESTEPS
from wanc.compiler.program import FILE, Program, weight_files
from wanc.compiler.stage import Files, Stage
from wanc.compiler.texts import RESULT as TEXTS
from wanc.compiler.texts import TENSOR as TEXT
from wanc.runtime.denoise import TIMESTEP
from wanc.runtime.safetensors import SafetensorsFile

Array = np.ndarray[Any, Any]
Sample = Callable[[], Mapping[str, Array]]


@dataclass(frozen=True)
class Quantize(Stage):
    """Inputs `program`, `exported`, `source`, `texts` and `samples`. Result: the program with one component quantised.

    Written are its graphs, its codes beside them, `program.json`, and its QuantTable. `scheme`, `observer` and `alpha`
    are a recipe's, `keep` its patterns; `branches` is 2 where there is guidance.
    """

    name: ClassVar[str] = "quantize"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "ml-dtypes")

    component: str
    scheme: str
    observer: Method
    alpha: str | float
    keep: tuple[str, ...]
    branches: int

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.decisions import Settings
        from wanc.compiler.quantize_component import quantize_component

        program = Program.read(inputs["program"][FILE])
        weights = weight_files({**inputs["exported"], **inputs["program"]}, inputs["source"])
        samples = _samples(inputs["samples"], inputs["texts"], self.branches)
        component, table = quantize_component(
            self.component,
            program.components[self.component],
            inputs["program"],
            weights,
            samples,
            Settings(self.scheme, self.observer, self.alpha),
            self.keep,
            out,
            progress=progress,
        )
        table.write(out)
        replace(program, components={**program.components, self.component: component}).write(out)


def _samples(clips: Files, texts: Files, branches: int) -> list[Sample]:
    """Every step that was kept, for each branch: the last row of the texts is the negative prompt."""
    rows = SafetensorsFile(texts[TEXTS])[TEXT]
    samples: list[Sample] = []
    for _, path in sorted(clips.items()):
        clip = SafetensorsFile(path)
        prompt = int(clip[PROMPT][0])
        for step in range(len(clip[TIMESTEPS])):
            samples += [partial(_sample, clip, step, rows, row) for row in (prompt, -1)[:branches]]
    return samples


def _sample(clip: Mapping[str, Array], step: int, texts: Array, row: int) -> dict[str, Array]:
    return {
        "latents": clip[LATENTS][step],
        TIMESTEP: clip[TIMESTEPS][step : step + 1],
        "text": texts[row][None],
    }
