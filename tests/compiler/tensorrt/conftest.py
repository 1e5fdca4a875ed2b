"""tiny-wan's denoising step, quantised by its weights alone, and compiled for a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.calibration.schemes import SCHEMES
from wanc.compiler.bundle.input_shapes import input_shapes
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.lowered_graph import InputShapes
from wanc.compiler.engines.segment import compile_segment, whole
from wanc.compiler.graphs.attentions import AttentionScales, attentions, round_attentions
from wanc.compiler.graphs.linears import linears
from wanc.compiler.graphs.quantizers import StoredDecision, insert_quantizers
from wanc.compiler.passes.fold import remove_unused
from wanc.compiler.pipeline import BuildPlan
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import OWN
from wanc.compiler.resolve import resolve
from wanc.compiler.stages.runner import Runner
from wanc.compiler.weights.finite import FiniteCheck
from wanc.compiler.weights.own_file import OwnFile
from wanc.compiler.weights.weight_file import float_values
from wanc.recipe.load import load
from wanc.words import AttentionFormat

STEP = {"int8": 0.05, "fp8": 0.02}
"""What a code of 1 stands for in inputs: noise of a few units fits."""


class Step:
    """A component of tiny-wan as the program has it, and the shapes of its recipe."""

    def __init__(self, files: ComponentFiles, requests: tuple[InputShapes, ...]) -> None:
        self.files, self.requests = files, requests

    def quantised(self, scheme: str, folder: Path, attention: AttentionFormat = "float") -> ComponentFiles:
        """The same with all Linears of its blocks as codes, and all attentions in that format."""
        model, weights = self.files.model("step"), self.files.weights
        decisions: dict[str, StoredDecision] = {}
        with OwnFile(folder, "codes.bin") as file:
            for linear in linears(model):
                tensor = linear.weight.const_value
                if linear.name.startswith("blocks.") and tensor is not None:
                    codes = SCHEMES[scheme].codes(float_values(tensor, weights))
                    stored = file.add(f"{linear.name}.codes", ir.tensor(codes.values))
                    scales = file.add(f"{linear.name}.scales", ir.tensor(np.ascontiguousarray(codes.scales[:, 0])))
                    decisions[linear.name] = StoredDecision(stored, scales, None, SCHEMES[scheme].inputs, STEP[scheme])
        insert_quantizers(model, decisions)
        if attention == "fp8":
            round_attentions(model, {found.name: AttentionScales(0.02, 0.02, 0.02) for found in attentions(model)})
        remove_unused(model)
        save(model, folder / "step.onnx")
        graph = replace(self.files.component.graphs["step"], file="step.onnx")
        component = replace(self.files.component, graphs={"step": graph})
        sources = {**weights, f"{OWN}codes.bin": folder / "codes.bin"}
        return ComponentFiles(self.files.name, component, {"step.onnx": folder / "step.onnx"}, sources)

    def compiled(self, compiler: Compiler, target: str, files: ComponentFiles, folder: Path) -> dict[str, Path]:
        """Engine files by graph."""
        made = compile_segment(compiler, files, whole(files), target, folder, FiniteCheck(files.name), self.requests)
        return {file.graph: folder / file.file for file in made.files}


@pytest.fixture(scope="session")
def component(tiny_recipe: Path, tiny_bundle: Path) -> Callable[[str], Step]:
    """The components of tiny-wan's program, from the store in which `tiny_bundle` was built."""
    (loaded,) = load(tiny_recipe)
    store = Store.open(tiny_bundle.parents[1] / "store")
    with store.session():
        resolved = resolve(loaded, SourceDigests(store), progress=False)
        plan, runner = BuildPlan.of(resolved), Runner(store, progress=False)
        exported = runner.run(plan.export, {"source": resolved.layout})
        fused = runner.run(plan.fuse, {"program": exported})
        trees = {"program": fused, "exported": exported, "source": resolved.source}
        inputs = {name: tree.locate() for name, tree in trees.items()}
    return lambda name: Step(ComponentFiles.read(name, inputs), input_shapes(resolved))


@pytest.fixture(scope="session")
def step(component: Callable[[str], Step]) -> Step:
    return component("denoiser_high")
