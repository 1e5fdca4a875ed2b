"""What the tests of fused models share: a component exported, fused and compiled as a build does it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from wanc.compiler.bundle.examine import examine
from wanc.compiler.bundle.golden import Golden
from wanc.compiler.engines.compiled import Compiled
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.segment import CPU, compile_segment, whole
from wanc.compiler.export.tracing import bind
from wanc.compiler.export.wan import Traced
from wanc.compiler.fuse import REPORT_FILE, Fuse
from wanc.compiler.graphs.lowerable import LowerableGraph, lowerable
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import Program, ProgramComponent, ProgramGraph
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.models.wan.checkpoint import Checkpoint
from wanc.recipe.schema import PARTS
from wanc.runtime.backends.openvino import core
from wanc.runtime.executor import Executor
from wanc.runtime.folder import PlainFolder
from wanc.runtime.interface import Interface
from wanc.runtime.parts import Parts
from wanc.runtime.segments import Segments

HAS_BFLOAT16 = "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
"""Whether this CPU multiplies bfloat16; OpenVINO widens it where it does not."""
DEFAULT = Fuse(None, (), PARTS)
"""What a recipe gets that says nothing of `fuse`."""


@dataclass(frozen=True)
class OneComponent:
    """A program of one component on disk, and the files that its weights lie in."""

    name: str
    files: Files
    source: Files

    @cached_property
    def read(self) -> ComponentFiles:
        return ComponentFiles.read(self.name, {"program": self.files, "exported": self.files, "source": self.source})

    @cached_property
    def lowerable(self) -> dict[str, LowerableGraph]:
        """Its graphs as they are lowered: cut by binding time, where they are tagged so."""
        return lowerable(self.read)

    @property
    def component(self) -> ProgramComponent:
        """With the graphs that are lowered."""
        return replace(self.read.component, graphs={name: entry.graph for name, entry in self.lowerable.items()})

    @property
    def report(self) -> dict[str, Any]:
        """What `fuse` says of each graph."""
        return json.loads(self.files[REPORT_FILE].read_bytes())["components"][self.name]

    def graph(self, name: str) -> ir.Model:
        return self.lowerable[name].model

    def fused(self, stage: Fuse, folder: Path) -> OneComponent:
        stage.run({"program": self.files}, folder, progress=False)
        return OneComponent(self.name, files_of(folder), self.source)

    def compiled(self, compiler: Compiler, folder: Path) -> CompiledComponent:
        finite = FiniteCheck(self.name)
        made = compile_segment(compiler, self.read, whole(self.read), CPU, folder, finite)
        return CompiledComponent(self.read, made, folder, compiler)


@dataclass
class CompiledComponent:
    """A component as an engine has it, ready to be executed."""

    files: ComponentFiles
    made: Compiled
    folder: Path
    compiler: Compiler
    executor: Executor = field(init=False)

    def __post_init__(self) -> None:
        engines = {(file.component, file.graph): Segments.whole(file) for file in self.made.files}
        self.executor = Executor(PlainFolder(self.folder), engines, threads=1)

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def graphs(self) -> Mapping[str, ProgramGraph]:
        return self.made.graphs

    def request(self) -> Parts:
        """A new request: nothing is kept from an earlier one."""
        graphs = {key: Interface(entry.inputs, entry.outputs) for key, entry in self.graphs.items()}
        return Parts(self.name, graphs, self.executor)

    def kernels(self) -> Mapping[str, Kernels]:
        """What was really built, by graph."""
        return examine(self.compiler, self.files, [self.made], self.folder, {}, Golden()).kernels


def export(name: str, checkpoint: Checkpoint, traced: Traced, folder: Path) -> OneComponent:
    """Trace a component of a checkpoint and write it as a program."""
    component = checkpoint.components[name]
    graphs: dict[str, ProgramGraph] = {}
    (folder / name).mkdir()
    for graph, model in traced.graphs(name, component, checkpoint):
        file = f"{name}/{graph.name}.onnx"
        save(bind(model, component.weights, where=component.folder), folder / file)
        interface = (graph.inputs, graph.outputs, graph.example, graph.values)
        graphs[graph.name] = ProgramGraph(file, *interface, named=graph.named)
    Program("graph", None, {name: ProgramComponent(graphs, component.weights)}, None).write(folder)
    return OneComponent(name, files_of(folder), {file: checkpoint.root / file for file in checkpoint.files})


def files_of(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def operators(*models: ir.Model) -> Counter[str]:
    """How many nodes there are of each operator, in all models together."""
    return Counter(node.op_type for model in models for node in model.graph.all_nodes())


def products_without(model: ir.Model, name: str) -> list[str]:
    """The products of a graph that do not depend on the values of an input; its sizes do not count."""
    depends = {value for value in model.graph.inputs if value.name == name}
    found: list[str] = []
    for node in model.graph:
        if node.op_type in ("Shape", "Size"):
            continue
        if any(value in depends for value in _read(node)):
            depends.update(node.outputs)
        elif node.op_type in ("MatMul", "Gemm", "Conv", "Attention"):
            found.append(f"{node.op_type} {node.outputs[0].name}")
    return found


def relative_error(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """The norm of the difference; infinite where one is not finite."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    assert np.isfinite(expected).all() and np.linalg.norm(expected) > 0
    error = float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
    return error if np.isfinite(error) else float("inf")


def _read(node: ir.Node) -> Iterable[ir.Value | None]:
    yield from node.inputs
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            for inner in attribute.as_graph():
                yield from _read(inner)


def given(tensors: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Torch's tensors as arrays."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}
