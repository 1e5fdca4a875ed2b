"""wanc's own contenders: the case's denoiser on the road that a build takes, from tracing to an engine's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wanc.bench.case import TEXT_LENGTH, Case
from wanc.compiler.engine import Compiler
from wanc.compiler.engines.onnxruntime import OnnxRuntimeCompiler
from wanc.compiler.engines.openvino import OpenVinoCompiler
from wanc.compiler.finite import FiniteCheck
from wanc.compiler.fuse import Fuse
from wanc.compiler.graph_file import save
from wanc.compiler.program import FILE, Program, ProgramComponent, ProgramGraph
from wanc.compiler.tracing import bind, trace
from wanc.models.wan import transformer
from wanc.models.wan.stored import file_weights
from wanc.recipe.schema import ISLANDS, PARTS
from wanc.runtime.interface import Interface, Tensor
from wanc.runtime.parts import Parts
from wanc.runtime.sessions import Sessions

COMPONENT, GRAPH = "denoiser_high", "step"
NOT_FUSED = Fuse((), (), ())
FUSED = Fuse(None, (), PARTS)

COMPILERS: Mapping[str, tuple[Fuse, Compiler]] = {
    "wanc onnxruntime": (FUSED, OnnxRuntimeCompiler()),
    "wanc openvino": (FUSED, OpenVinoCompiler("fp32", ())),
    "wanc openvino bf16": (FUSED, OpenVinoCompiler("bf16", ISLANDS)),
    "wanc onnxruntime, not fused": (NOT_FUSED, OnnxRuntimeCompiler()),
    "wanc openvino, not fused": (NOT_FUSED, OpenVinoCompiler("fp32", ())),
}


@dataclass
class Ours:
    """One contender: the parts of its denoiser, executed as a bundle's runtime does."""

    graphs: Mapping[str, Interface]
    sessions: Sessions
    _parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        self._parts = Parts(COMPONENT, self.graphs, self.sessions)

    def step(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        """The velocity; what is known of the request and the timestep is computed at the first call alone."""
        return self._parts.run(GRAPH, inputs, branch="conditional")["velocity"]

    def request_seconds(self) -> float:
        """What was computed once took so long."""
        counters = self.sessions.counters()
        return sum(counter["seconds"] for name, counter in counters.items() if name != f"{COMPONENT}/{GRAPH}")


def export(case: Case, source: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Trace the denoiser and write it as a program of one component; the files by their names."""
    (graph,) = transformer.graphs(case.config(), TEXT_LENGTH)
    (name,) = source
    weights = file_weights(source[name].parent, name)
    file = f"{COMPONENT}/{GRAPH}.onnx"
    (folder / COMPONENT).mkdir(parents=True)
    save(bind(trace(graph), weights, where=str(folder)), folder / file)
    entry = ProgramGraph(file, graph.inputs, graph.outputs, graph.example, graph.values)
    Program("graph", None, {COMPONENT: ProgramComponent({GRAPH: entry}, weights)}, None).write(folder)
    return _files(folder)


def build(name: str, exported: Mapping[str, Path], source: Mapping[str, Path], folder: Path, threads: int) -> Ours:
    """Fuse and compile for one contender below `folder`."""
    fuse, compiler = COMPILERS[name]
    fused, out = folder / "fused", folder / "compiled"
    for path in (fused, out):
        path.mkdir(parents=True)
    fuse.run({"program": exported}, fused, progress=False)
    component = Program.read(fused / FILE).components[COMPONENT]
    compiled = compiler.compile_component(COMPONENT, component, _files(fused), source, out, FiniteCheck(COMPONENT))
    files = {(COMPONENT, graph): out / entry.file for graph, entry in compiled.graphs.items()}
    return Ours(
        {graph: _interface(entry) for graph, entry in compiled.graphs.items()}, Sessions(files, threads=threads)
    )


def _files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def _interface(graph: ProgramGraph) -> Interface:
    inputs = (Tensor(e.name, e.dtype, e.shape, e.binding, e.per, e.shape_of) for e in graph.inputs)
    return Interface(tuple(inputs), tuple(Tensor(e.name, e.dtype, e.shape) for e in graph.outputs))
