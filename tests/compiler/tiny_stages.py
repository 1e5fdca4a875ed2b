"""tiny-wan as a build has it before its quantize stages, from the store beside a bundle; and a component of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tests.conftest import ROOT
from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.pipeline import BuildPlan
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import FILE, Program
from wanc.compiler.program.quant_table import QuantTable, table_file
from wanc.compiler.quantize.experts import QuantizeStages
from wanc.compiler.resolve import resolve
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Files, Stage, Tree, scratch_of
from wanc.recipe.load import load

from .fusing import files_of


@dataclass(frozen=True)
class StageInputs:
    """A program among a stage's inputs, of which one component is looked at."""

    component: ClassVar[str]
    inputs: Mapping[str, Files]

    @property
    def files(self) -> ComponentFiles:
        return ComponentFiles.read(self.component, self.inputs)

    @property
    def program(self) -> Program:
        return Program.read(self.inputs["program"][FILE])

    @property
    def table(self) -> QuantTable:
        return QuantTable.read(self.inputs["program"][table_file(self.component)])

    def after(self, stage: Stage, out: Path, **more: Files) -> dict[str, Files]:
        """The inputs with what a stage makes of them, and of `more`, in the program's place."""
        return {**self.inputs, "program": {**self.inputs["program"], **run_stage(stage, {**self.inputs, **more}, out)}}


def run_stage(stage: Stage, inputs: Mapping[str, Files], out: Path) -> Files:
    """What a stage writes into a new folder; what it keeps beside it may be there from before."""
    out.mkdir(parents=True)
    scratch_of(out).mkdir(exist_ok=True)
    stage.run(inputs, out, progress=False)
    return files_of(out)


def fused_trees(tiny_bundle: Path, *overrides: str) -> tuple[QuantizeStages, dict[str, Tree]]:
    """The quantize stages of recipes/tiny-wan-int8.yaml with other settings, and what they begin with."""
    (loaded,) = load(ROOT / "recipes" / "tiny-wan-int8.yaml", overrides)
    store = Store.open(tiny_bundle.parents[1] / "store")
    with store.session():
        resolved = resolve(loaded, SourceDigests(store, paranoid=False), progress=False)
        plan, runner = BuildPlan.of(resolved), Runner(store, progress=False)
        exported = runner.run(plan.export, {"source": resolved.layout})
        program = runner.run(plan.fuse, {"program": exported})
    assert plan.quantization is not None
    return plan.quantization, {"exported": exported, "program": program, "source": resolved.source}
