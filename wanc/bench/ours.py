"""wanc's own contenders: the case's denoiser on the road that a build takes, from tracing to an engine's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wanc.bench.case import TEXT_LENGTH, Case
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.engines.products import Products
from wanc.compiler.engines.stage import Compiler
from wanc.compiler.export.tracing import bind, trace
from wanc.compiler.fuse import Fuse
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import FILE, Program, ProgramComponent, ProgramGraph, weight_files
from wanc.compiler.quantize.component import Keep, Samples, quantize_component
from wanc.compiler.quantize.decisions import Settings
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.models.wan import transformer
from wanc.models.wan.stored import file_weights
from wanc.recipe.quantize import CalibrateSection, QuantizeSection
from wanc.recipe.schema import PARTS
from wanc.runtime.interface import Interface, Tensor
from wanc.runtime.parts import Parts
from wanc.runtime.sessions import Sessions
from wanc.words import ISLANDS

Array = np.ndarray[Any, Any]

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
QUANTIZED: Mapping[str, Compiler] = {
    "wanc onnxruntime int8": OnnxRuntimeCompiler(),
    "wanc openvino int8": OpenVinoCompiler("fp32", ()),
    "wanc openvino int8 bf16": OpenVinoCompiler("bf16", ISLANDS),
}
"""Engines of the fused denoiser in INT8, with the recipe's own defaults for all that there is to choose."""


@dataclass
class Ours:
    """One contender: the parts of its denoiser, executed as a bundle's runtime does."""

    graphs: Mapping[str, Interface]
    sessions: Sessions
    compiler: Compiler
    _parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        self._parts = Parts(COMPONENT, self.graphs, self.sessions)

    def step(self, inputs: Mapping[str, Array]) -> Array:
        """The velocity; what is known of the request and the timestep is computed at the first call alone."""
        return self._parts.run(GRAPH, inputs, branch="conditional")["velocity"]

    def products(self, inputs: Mapping[str, Array]) -> Products:
        """What the step multiplies, in which numbers, from one more execution."""
        backend = self.compiler.open(self.sessions.file(COMPONENT, GRAPH))
        backend.run(self._parts.inputs(GRAPH, inputs, branch="conditional"))
        return self.compiler.kernels(backend).products

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


def build(name: str, exported: Files, source: Files, folder: Path, threads: int) -> Ours:
    """Fuse and compile for one contender below `folder`."""
    fuse, compiler = COMPILERS[name]
    component, graphs = _fused(fuse, exported, folder / "fused")
    return _compiled(compiler, component, graphs, source, folder / "compiled", threads)


def build_quantized(
    exported: Files, source: Files, samples: Sequence[Mapping[str, Array]], folder: Path, threads: int
) -> dict[str, Ours]:
    """Fuse, quantise on the samples, and compile for every contender in `QUANTIZED`, below `folder`."""
    asked = QuantizeSection(scheme="int8", calibrate=CalibrateSection(prompts=Path("none")))
    component, graphs = _fused(FUSED, exported, folder / "fused")
    out = folder / "quantized"
    out.mkdir()
    settings = Settings(asked.scheme, asked.calibrate.observer, asked.smooth.alpha)
    given = [partial(dict[str, Array], sample) for sample in samples]
    quantized, _ = quantize_component(
        COMPONENT,
        component,
        graphs,
        source,
        Samples(given, [1.0] * len(given)),
        settings,
        Keep(asked.keep.patterns),
        out,
        progress=False,
    )
    weights = weight_files(_files(out), source)
    return {
        name: _compiled(compiler, quantized, _files(out), weights, folder / f"compiled-{index}", threads)
        for index, (name, compiler) in enumerate(QUANTIZED.items())
    }


def _fused(fuse: Fuse, exported: Files, out: Path) -> tuple[ProgramComponent, Files]:
    out.mkdir(parents=True)
    fuse.run({"program": exported}, out, progress=False)
    return Program.read(out / FILE).components[COMPONENT], _files(out)


def _compiled(
    compiler: Compiler, component: ProgramComponent, graphs: Files, weights: Files, out: Path, threads: int
) -> Ours:
    out.mkdir(parents=True)
    compiled = compiler.compile_component(COMPONENT, component, graphs, weights, out, FiniteCheck(COMPONENT))
    files = {(COMPONENT, graph): out / entry.file for graph, entry in compiled.graphs.items()}
    return Ours(
        {graph: _interface(entry) for graph, entry in compiled.graphs.items()},
        Sessions(files, threads=threads),
        compiler,
    )


def _files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def _interface(graph: ProgramGraph) -> Interface:
    inputs = (Tensor(e.name, e.dtype, e.shape, e.binding, e.per, e.shape_of) for e in graph.inputs)
    return Interface(tuple(inputs), tuple(Tensor(e.name, e.dtype, e.shape) for e in graph.outputs))
