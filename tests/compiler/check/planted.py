"""Faults on the road of a build, in a module that a worker's process can import by name."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir

from wanc.artifacts.sources import SourceDigests
from wanc.artifacts.store import Store
from wanc.compiler.bundle.assemble import Assemble
from wanc.compiler.check.onnx_source import OnnxOrigin
from wanc.compiler.check.origin import Origin
from wanc.compiler.check.stage import CheckBuild
from wanc.compiler.check.torch_source import TorchOrigin
from wanc.compiler.check.trials import Source
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.engine import Engine
from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.onnxruntime.passes import PASSES
from wanc.compiler.engines.stage import Compile
from wanc.compiler.export.onnx_file import ExportOnnx
from wanc.compiler.export.torch_module import ExportTorch, TorchInput
from wanc.compiler.fuse import Fuse
from wanc.compiler.partition import Partition
from wanc.compiler.passes.rewrite import Pass, PassOutcome
from wanc.compiler.pipeline import BuildPlan
from wanc.compiler.program.graph_file import load, save
from wanc.compiler.program.program import CHECK_FILE, Segment
from wanc.compiler.resolve import resolve
from wanc.compiler.stages.runner import Runner
from wanc.compiler.stages.stage import Files, Stage
from wanc.models.onnx_file import open_onnx
from wanc.recipe.load import load as load_recipe

from ..fusing import files_of

Change = Callable[[ir.Model], int]
"""Changes a graph, and says in how many places."""


def _drop(op_type: str, attribute: str) -> Change:
    def change(model: ir.Model) -> int:
        found = [node for node in model.graph if node.op_type == op_type and attribute in node.attributes]
        for node in found:
            del node.attributes[attribute]
        return len(found)

    return change


def _as_scalar(model: ir.Model) -> int:
    """Takes a constant of one element for a scalar, whatever its rank."""
    found = [value for value in model.graph.initializers.values() if value.shape and value.const_value.size == 1]
    for value in found:
        value.const_value = ir.tensor(value.const_value.numpy().reshape(()), name=str(value.name))
        value.shape = ir.Shape([])
    for node in model.graph if found else ():
        for output in node.outputs:
            if not output.is_graph_output():
                output.shape = None
    return len(found)


def _without_unsqueeze(model: ir.Model) -> int:
    """Takes out what gives a value one axis more, before a sum that would broadcast it anyhow."""
    found = [node for node in model.graph if node.op_type == "Unsqueeze"]
    for node in found:
        ir.convenience.replace_all_uses_with(node.outputs[0], node.inputs[0])
        model.graph.remove(node, safe=True)
    return len(found)


def _baked(model: ir.Model) -> int:
    """Takes the first size of the example, 3, for the only one that there is."""
    found = [node for node in model.graph if node.op_type == "Shape"]
    for node in found:
        node.op_type = "Constant"
        node.resize_inputs(0)
        node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.array([3, 4], np.int64)))
    return len(found)


def _swapped(model: ir.Model) -> int:
    """The first two weights of one shape stand for each other."""
    weights = list(model.graph.initializers.values())
    for index, one in enumerate(weights):
        for other in weights[index + 1 :]:
            if (
                one.shape == other.shape
                and one.dtype == other.dtype
                and not np.array_equal(one.const_value.numpy(), other.const_value.numpy())
            ):
                one.const_value, other.const_value = other.const_value, one.const_value
                return 1
    return 0


PLAIN = Fuse(None, (), ())

CHANGES: Mapping[str, Change] = {
    "alpha dropped": _drop("LeakyRelu", "alpha"),
    "axis dropped": _drop("Softmax", "axis"),
    "keepdims dropped": _drop("ReduceSum", "keepdims"),
    "one element is a scalar": _as_scalar,
    "an axis less": _without_unsqueeze,
    "a size baked in": _baked,
    "weights swapped": _swapped,
}


def planted(fault: str) -> Pass:
    """A pass called `planted`, which makes a fault once."""
    done: list[bool] = []

    def apply(model: ir.Model) -> PassOutcome:
        fired = 0 if done else CHANGES[fault](model)
        done.extend([True] if fired else [])
        return PassOutcome(fired)

    return Pass("planted", "", apply)


@dataclass(frozen=True)
class PlantedFuse(Fuse):
    """With one pass more, at the end."""

    fault: str = ""

    def chosen(self) -> list[Pass]:
        return [*super().chosen(), planted(self.fault)]


class PlantedCompiler(OnnxRuntimeCompiler):
    """Lowers with one pass more."""

    def __init__(self, fault: str) -> None:
        self._fault = fault

    @property
    def passes(self) -> tuple[Pass, ...]:  # pyright: ignore
        return (*PASSES, planted(self._fault))


class FaultyCompiler(OnnxRuntimeCompiler):
    """Writes another graph than it was given."""

    def __init__(self, fault: str) -> None:
        self._fault = fault

    def compile(
        self, component: str, graphs: Mapping[str, LoweredGraph], weights: frozenset[Path]
    ) -> Mapping[str, Path]:
        for graph in graphs.values():
            FAULTS[self._fault](graph.path)
        return {name: graph.path for name, graph in graphs.items()}


def _exchange_outputs(path: Path) -> None:
    """The graph's first two outputs under each other's names."""
    model = load(path)
    one, other = model.graph.outputs[:2]
    first, second = one.name, other.name
    one.name, other.name = "one", "other"
    one.name, other.name = second, first
    save(model, path)


def _exchange_weights(path: Path) -> None:
    """The first and the second half of the weights' file."""
    for file in path.parent.glob("weights.*.bin"):
        data = bytearray(file.read_bytes())
        middle = len(data) // 2
        data[:middle], data[-middle:] = data[-middle:], data[:middle]
        file.write_bytes(data)


def _rename(path: Path) -> None:
    """The graph's first output under a name of its own."""
    model = load(path)
    model.graph.outputs[0].name = "renamed"
    save(model, path)


FAULTS: Mapping[str, Callable[[Path], None]] = {
    "outputs": _exchange_outputs,
    "weights": _exchange_weights,
    "names": _rename,
}


@dataclass(frozen=True)
class PlantedEngine(Engine):
    """An engine with a fault: in a pass of its lowering, or in what it compiles."""

    name: ClassVar[str] = "onnxruntime"
    tools: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    fault: str

    @property
    def code(self) -> str:
        return "none of wanc's"

    def compiler(self, target: str) -> Compiler:
        return FaultyCompiler(self.fault) if self.fault in FAULTS else PlantedCompiler(self.fault)


class BelievingCompiler(OnnxRuntimeCompiler):
    """Believes that there is a kernel for every fused operator."""

    def has_kernel(self, node: ir.Node, opset: int) -> bool:
        del node, opset
        return True


@dataclass(frozen=True)
class BelievingEngine(PlantedEngine):
    """An engine that lacks kernels which it says that it has."""

    def compiler(self, target: str) -> Compiler:
        return BelievingCompiler()


@dataclass(frozen=True)
class CrashingOrigin(OnnxOrigin):
    """A file over which its runtime crashes."""

    def open(self, inputs: Mapping[str, Files], scratch: Path) -> Source:
        os.kill(os.getpid(), signal.SIGSEGV)
        return super().open(inputs, scratch)


def build_with(recipe: Path, engine: Engine) -> None:
    """Build a recipe with a faulty engine, each stage in a process of its own."""
    (loaded,) = load_recipe(recipe)
    store = Store.open(recipe.parent / "store")
    with store.session():
        plan = BuildPlan.of(resolve(loaded, SourceDigests(store), progress=False))
        assemble = replace(plan.engines.assemble, engine=engine)
        plan = replace(plan, engines=replace(plan.engines, assemble=assemble))
        runner = Runner(store, progress=False)
        plan.seal(recipe.parent / "bundle").run(runner, plan.run(runner.run))


def check_with(model: Path, example: Mapping[str, int], *, fuse: Fuse = PLAIN, engine: Engine | None = None) -> Any:
    """The stages of a build of an ONNX file, one after the other in this process; what the check says of it."""
    return _check(model.parent, open_onnx(model).files, ExportOnnx(dict(example), {}), OnnxOrigin(), fuse, engine)


def check_torch(
    source: Files,
    folder: Path,
    factory: str,
    inputs: tuple[TorchInput, ...],
    example: Mapping[str, int],
    *,
    fuse: Fuse = PLAIN,
) -> Any:
    """The same of a torch module."""
    export = ExportTorch(factory, inputs, None, example, {}, is_checked=True)
    return _check(folder, source, export, TorchOrigin(), fuse, None)


def _check(folder: Path, source: Files, export: Stage, origin: Origin, fuse: Fuse, engine: Engine | None) -> Any:
    chosen = engine or OnnxRuntimeEngine()

    def run(name: str, stage: Stage, inputs: Mapping[str, Files]) -> Files:
        (folder / name / "out").mkdir(parents=True)
        stage.run(inputs, folder / name / "out", progress=False)
        return files_of(folder / name / "out")

    exported = run("export", export, {"source": source})
    fused = run("fuse", fuse, {"program": exported})
    program = {**fused, **run("partition", Partition("none", "cpu"), {"program": fused})}
    inputs = {"program": program, "exported": exported, "source": source}
    compiled = run("compile", Compile(chosen, Segment("model", 0, 0, 0, "cpu"), "cpu"), inputs)
    engines = {**compiled, **run("engine", Assemble(chosen), {**inputs, "compiled": compiled})}
    checked = run("check", CheckBuild(chosen, origin, fuse), {**inputs, "engines": engines})
    return json.loads(checked[CHECK_FILE].read_bytes())
