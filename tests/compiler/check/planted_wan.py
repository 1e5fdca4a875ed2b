"""Faults on the road of a checkpoint, in a module that a worker's process can import by name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import onnx_ir as ir

from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.fuse import Fuse
from wanc.compiler.passes.rewrite import Pass, PassOutcome
from wanc.compiler.pipeline import BuildPlan
from wanc.compiler.program.graph_file import load, save
from wanc.compiler.resolve import resolve
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Files, Stage, Tree
from wanc.recipe.load import LoadedRecipe

Change = Callable[[ir.Model], int]
"""Changes a graph, and says in how many places."""


def exchanged(one: str, other: str) -> Change:
    """Every weight of one module stands for that of the same name in the other."""

    def change(model: ir.Model) -> int:
        weights = model.graph.initializers
        pairs = [(name, name.replace(one, other)) for name in weights if f".{one}" in f".{name}"]
        for ours, theirs in pairs:
            assert weights[ours].shape == weights[theirs].shape
            first, second = weights[ours].const_value, weights[theirs].const_value
            weights[ours].const_value, weights[theirs].const_value = second, first
        return len(pairs)

    return change


def _other_epsilon(model: ir.Model) -> int:
    found = [node for node in model.graph if "epsilon" in node.attributes]
    for node in found:
        node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-3)
    return len(found)


def _other_split(model: ir.Model) -> int:
    """Rows' angles for columns, and columns' for rows: the shares of a head's channels in another order."""
    found = [node for node in model.graph if node.op_type == "Concat" and _joins_angles(node)]
    for node in found:
        frames, rows, columns = node.inputs
        for index, value in enumerate((frames, columns, rows)):
            node.replace_input_with(index, value)
    return len(found)


def _joins_angles(node: ir.Node) -> bool:
    givers = [value.producer() if value is not None else None for value in node.inputs]
    return len(givers) == 3 and all(giver is not None and giver.op_type == "Expand" for giver in givers)


def _forgotten(cache: str) -> Change:
    """What is read from a cache is zero."""

    def change(model: ir.Model) -> int:
        (value,) = [value for value in model.graph.inputs if value.name == cache] or [None]
        if value is None:
            return 0
        uses = list(value.uses())
        zero = ir.node("Sub", [value, value])
        zero.outputs[0].type, zero.outputs[0].shape, zero.outputs[0].name = value.type, value.shape, "forgotten"
        model.graph.insert_before(model.graph[0], zero)
        for use in uses:
            use.node.replace_input_with(use.idx, zero.outputs[0])
        return len(uses)

    return change


def _not_kept(model: ir.Model) -> int:
    """The caches that the first latent frame leaves are those of no frame at all."""
    if any(value.name == "cache_0" for value in model.graph.inputs):
        return 0
    kept = [value for value in model.graph.outputs if str(value.name).startswith("next_")]
    for number, value in enumerate(kept):
        name = str(value.name)
        value.name = f"kept.{name}"
        zero = ir.node("Sub", [value, value])
        zero.outputs[0].type, zero.outputs[0].shape, zero.outputs[0].name = value.type, value.shape, name
        model.graph.append(zero)
        model.graph.outputs[1 + number] = zero.outputs[0]
    return len(kept)


CHANGES: Mapping[str, Change] = {
    "values for keys": exchanged("attn2.to_k.", "attn2.to_v."),
    "blocks exchanged": exchanged("blocks.0.", "blocks.1."),
    "gates exchanged": exchanged("DenseReluDense.wi_0.", "DenseReluDense.wi_1."),
    "residual blocks exchanged": exchanged("mid_block.resnets.0.", "mid_block.resnets.1."),
    "another epsilon": _other_epsilon,
    "another split": _other_split,
    "a cache forgotten": _forgotten("cache_0"),
    "caches not kept": _not_kept,
}


@dataclass(frozen=True)
class FaultyExport(Stage):
    """Input `program`: an export. Result: the same with a fault in its graphs."""

    name: ClassVar[str] = "faulty-export"

    fault: str

    def key_document(self, inputs: Mapping[str, Tree]) -> dict[str, Any]:
        return {"stage": self.name, "fault": self.fault, "inputs": {"program": inputs["program"].digest}}

    def run(self, inputs: Mapping[str, Files], out: Path, *, progress: bool) -> None:
        changes = 0
        for name, path in inputs["program"].items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".onnx"):
                model = load(path)
                changes += CHANGES[self.fault](model)
                save(model, out / name)
            else:
                shutil.copyfile(path, out / name)
        assert changes, "nothing was planted"


@dataclass(frozen=True)
class FaultyFuse(Fuse):
    """Another pass alone, which makes a fault once."""

    fault: str = ""

    def key_document(self, inputs: Mapping[str, Tree]) -> dict[str, Any]:
        return {"stage": self.name, "fault": self.fault, "inputs": {"program": inputs["program"].digest}}

    def chosen(self) -> list[Pass]:
        done: list[bool] = []

        def apply(model: ir.Model) -> PassOutcome:
            fired = 0 if done else CHANGES[self.fault](model)
            done.extend([True] if fired else [])
            return PassOutcome(fired)

        return [Pass("planted", "", apply)]


def build_with(loaded: LoadedRecipe, store: Path, *, export: str | None = None, fuse: str | None = None) -> None:
    """Build a recipe up to its check, with a fault planted, each stage in a process of its own."""
    opened = Store.open(store)
    with opened.session():
        runner = Runner(opened, progress=False)
        plan = BuildPlan.of(resolve(loaded, SourceDigests(opened), progress=False))
        if fuse is not None:
            plan = replace(plan, fuse=FaultyFuse((), (), plan.fuse.hoist, fuse))

        def run(stage: Stage, inputs: Mapping[str, Tree]) -> Tree:
            made = runner.run(stage, inputs)
            return runner.run(FaultyExport(export), {"program": made}) if export and stage.name == "export" else made

        plan.run(run)
