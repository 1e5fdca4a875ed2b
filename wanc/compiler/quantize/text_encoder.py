"""The text encoder's quantize stage: its Linears in fewer bits, as the prompts of calibration have them.

A sample is a prompt: its tokens' rows of the embedding, which is mapped, go through the encoder. It comes before all
that is calibrated on texts, so that denoisers are told what the encoder that ships tells them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.quantize.texts import prompt_reader
from wanc.compiler.stages.stage import Files, Stage, scratch_of
from wanc.runtime.model import TEXT_ENCODER
from wanc.words import Observer


@dataclass(frozen=True)
class QuantizeTextEncoder(Stage):
    """Inputs `program`, `exported` and `source`. Result: as that of `Quantize`, of the text encoder.

    `prompts` are a recipe's, each once, and its negative one; `tokenizer` names its file among the source's. All else
    is as in `Quantize`. The embedding stays as it is.
    """

    name: ClassVar[str] = "quantize"
    tools: ClassVar[tuple[str, ...]] = (
        "onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy", "ml-dtypes", "tokenizers", "ftfy",
    )  # fmt: skip
    resumes: ClassVar[bool] = True
    component: ClassVar[str] = TEXT_ENCODER

    prompts: tuple[str, ...]
    tokenizer: str
    scheme: str
    observer: Observer
    alpha: str | float
    keep: tuple[str, ...]
    max_drop_db: float | None
    int8_share: float | None
    zeros: tuple[str, ...] | None = None

    def disk_bytes(self, inputs: Mapping[str, Files]) -> int:
        """What is known of prompts between two pieces is little."""
        from wanc.compiler.quantize.quantize_space import quantize_bytes

        measures_effects = self.max_drop_db is not None or self.int8_share is not None
        files, samples = ComponentFiles.read(self.component, inputs), len(self.prompts)
        return quantize_bytes(
            files, self.scheme, self.keep, samples, measures_effects=measures_effects, is_trained=False
        )

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        from wanc.compiler.quantize.component import Keep, Samples, quantize_component
        from wanc.compiler.quantize.decisions import Settings

        program = Program.read(inputs["program"][FILE])
        read = prompt_reader(program, inputs["source"], self.tokenizer)
        component, table = quantize_component(
            ComponentFiles.read(self.component, inputs),
            Samples([partial(read, prompt) for prompt in self.prompts], [1.0] * len(self.prompts)),
            Settings(self.scheme, self.observer, self.alpha),
            Keep(self.keep, self.max_drop_db, self.int8_share),
            out,
            scratch_of(out),
            zeros=self.zeros,
            progress=progress,
        )
        table.write(out)
        replace(program, components={**program.components, self.component: component}).write(out)
