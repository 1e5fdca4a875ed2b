"""tiny-wan's text encoder as a program has it, before and behind its quantize stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from wanc.compiler.host.chain import chain_of
from wanc.compiler.quantize.experts import QuantizeStages
from wanc.compiler.quantize.text_encoder import QuantizeTextEncoder
from wanc.compiler.quantize.texts import prompt_reader
from wanc.compiler.stages.stage import Stage, Tree
from wanc.runtime.encode import GRAPH
from wanc.runtime.model import TEXT_ENCODER

from .tiny_stages import StageInputs, fused_trees
from .weighted import Array

INT8 = "quantize.text_encoder=int8"
FEW = ("quantize.calibrate.clips=2", "quantize.calibrate.timestep_bins=1", "sampling.steps=2")
Quantise = Callable[..., "Encoder"]
"""`quantise(scheme)`, or with other fields of the stage changed as well."""


@dataclass(frozen=True)
class Encoder(StageInputs):
    """A text encoder's program among a stage's inputs."""

    component: ClassVar[str] = TEXT_ENCODER

    def hidden(self, tokenizer: str, prompts: Sequence[str]) -> list[Array]:
        """What the host gives for prompts."""
        read = prompt_reader(self.program, self.inputs["source"], tokenizer)
        with TemporaryDirectory() as folder:
            found = chain_of(self.files, GRAPH, Path(folder) / "run").run([read(prompt) for prompt in prompts])
        return [outputs["hidden"] for outputs in found]


@dataclass(frozen=True)
class Fused(Encoder):
    """As it is before anything is quantised, and the stages of a recipe."""

    stages: QuantizeStages
    trees: Mapping[str, Tree]

    def stage(self, **changes: Any) -> QuantizeTextEncoder:
        assert self.stages.text_encoder is not None
        return replace(self.stages.text_encoder, **changes)

    def quantised(self, stage: Stage, out: Path) -> Encoder:
        return Encoder(self.after(stage, out))


def fused_with(tiny_bundle: Path, *overrides: str) -> Fused:
    """From the store beside `tiny_bundle`."""
    stages, trees = fused_trees(tiny_bundle, *FEW, *overrides)
    return Fused({name: tree.locate() for name, tree in trees.items()}, stages, trees)
