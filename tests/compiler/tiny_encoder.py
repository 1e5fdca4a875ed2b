"""tiny-wan's text encoder as a program has it, before and behind its quantize stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.conftest import ROOT
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.host.chain import chain_of
from wanc.compiler.pipeline import BuildPlan
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.program.quant_table import QuantTable, table_file
from wanc.compiler.quantize.experts import QuantizeStages
from wanc.compiler.quantize.text_encoder import QuantizeTextEncoder
from wanc.compiler.quantize.texts import prompt_reader
from wanc.compiler.resolve import resolve
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Files, Stage, Tree, scratch_of
from wanc.recipe.load import load
from wanc.runtime.encode import GRAPH
from wanc.runtime.model import TEXT_ENCODER

from .fusing import files_of
from .weighted import Array

INT8 = "quantize.text_encoder=int8"
FEW = ("quantize.calibrate.clips=2", "quantize.calibrate.timestep_bins=1", "sampling.steps=2")
Quantise = Callable[..., "Encoder"]
"""`quantise(scheme)`, or with other fields of the stage changed as well."""


@dataclass(frozen=True)
class Encoder:
    """A text encoder's program among a stage's inputs."""

    inputs: Mapping[str, Files]

    @property
    def files(self) -> ComponentFiles:
        return ComponentFiles.read(TEXT_ENCODER, self.inputs)

    @property
    def program(self) -> Program:
        return Program.read(self.inputs["program"][FILE])

    @property
    def table(self) -> QuantTable:
        return QuantTable.read(self.inputs["program"][table_file(TEXT_ENCODER)])

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
        out.mkdir(parents=True)
        scratch_of(out).mkdir(exist_ok=True)
        stage.run(self.inputs, out, progress=False)
        return Encoder({**self.inputs, "program": {**self.inputs["program"], **files_of(out)}})


def fused_with(tiny_bundle: Path, *overrides: str) -> Fused:
    """From the store beside `tiny_bundle`."""
    (loaded,) = load(ROOT / "recipes" / "tiny-wan-int8.yaml", [*FEW, *overrides])
    store = Store.open(tiny_bundle.parents[1] / "store")
    with store.session():
        resolved = resolve(loaded, SourceDigests(store, paranoid=False), progress=False)
        plan, runner = BuildPlan.of(resolved), Runner(store, progress=False)
        exported = runner.run(plan.export, {"source": resolved.layout})
        program = runner.run(plan.fuse, {"program": exported})
    trees = {"exported": exported, "program": program, "source": resolved.source}
    assert plan.quantization is not None
    return Fused({name: tree.locate() for name, tree in trees.items()}, plan.quantization, trees)
