"""wanc's own contenders: the case's denoiser on the road that a build takes, from tracing to an engine's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wanc.bench.case import TEXT_LENGTH, Case
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler
from wanc.compiler.engines.products import Products
from wanc.compiler.engines.segment import CPU, compile_segment, whole
from wanc.compiler.export.tracing import bind, trace
from wanc.compiler.fuse import Fuse
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.graph_file import save
from wanc.compiler.program.program import Program, ProgramComponent, ProgramGraph, weight_files
from wanc.compiler.quantize.component import Keep, Samples, quantize_component
from wanc.compiler.quantize.decisions import Settings
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.models.graph import Graph
from wanc.models.wan import transformer
from wanc.models.wan.stored import file_weights
from wanc.recipe.quantize import CalibrateSection, QuantizeSection
from wanc.recipe.schema import PARTS
from wanc.runtime.executor import Executor
from wanc.runtime.folder import PlainFolder
from wanc.runtime.interface import Interface
from wanc.runtime.parts import Parts
from wanc.runtime.segments import Segments
from wanc.runtime.value import Value, as_array
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
    """One contender: the parts of its denoiser, executed as a bundle's runtime does; `file` is its step."""

    graphs: Mapping[str, Interface]
    executor: Executor
    file: Path
    compiler: Compiler
    _parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        self._parts = Parts(COMPONENT, self.graphs, self.executor)

    def step(self, inputs: Mapping[str, Array]) -> Array:
        """The velocity; what is known of the request and the timestep is computed at the first call alone."""
        return self.run(inputs)["velocity"].numpy()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Value]:
        """All that the step gives."""
        return self._parts.run(GRAPH, inputs, branch="conditional")

    def products(self, inputs: Mapping[str, Array]) -> Products:
        """What the step multiplies, in which numbers, from one more execution."""
        backend = self.compiler.execute(self.file)
        assert backend is not None, "both engines are executed where they are built"
        given = self._parts.inputs(GRAPH, inputs, branch="conditional")
        backend.run({name: as_array(value) for name, value in given.items()})
        return self.compiler.report(self.file, backend).products

    def request_seconds(self) -> float:
        """What was computed once took so long."""
        counters = self.executor.counters()
        return sum(counter["seconds"] for name, counter in counters.items() if name != f"{COMPONENT}/{GRAPH}")


def export(case: Case, source: Mapping[str, Path], folder: Path, graph: Graph | None = None) -> dict[str, Path]:
    """Trace the denoiser, or another graph of its weights, as a program of one component; the files by their names."""
    graph = graph or transformer.graphs(case.config(), TEXT_LENGTH)[0]
    (name,) = source
    weights = file_weights(source[name].parent, name)
    file = f"{COMPONENT}/{GRAPH}.onnx"
    (folder / COMPONENT).mkdir(parents=True)
    save(bind(trace(graph), weights, where=str(folder)), folder / file)
    entry = ProgramGraph(file, graph.inputs, graph.outputs, graph.example, graph.values, named=graph.named)
    Program("graph", None, {COMPONENT: ProgramComponent({GRAPH: entry}, weights)}, None).write(folder)
    return _files(folder)


def build(name: str, exported: Files, source: Files, folder: Path, threads: int) -> Ours:
    """Fuse and compile for one contender below `folder`."""
    fuse, compiler = COMPILERS[name]
    return _compiled(compiler, _fused(fuse, exported, source, folder / "fused"), folder / "compiled", threads)


def build_quantized(
    exported: Files, source: Files, samples: Sequence[Mapping[str, Array]], folder: Path, threads: int
) -> dict[str, Ours]:
    """Fuse, quantise on the samples, and compile for every contender in `QUANTIZED`, below `folder`."""
    asked = QuantizeSection(scheme="int8", calibrate=CalibrateSection(prompts=Path("none")))
    fused = _fused(FUSED, exported, source, folder / "fused")
    out, kept = folder / "quantized", folder / "kept"
    out.mkdir()
    kept.mkdir()
    settings = Settings(asked.scheme, asked.calibrate.observer, asked.smooth.alpha)
    given = [partial(dict[str, Array], sample) for sample in samples]
    quantized, _ = quantize_component(
        fused,
        Samples(given, [1.0] * len(given)),
        settings,
        Keep(asked.keep.patterns),
        out,
        kept,
        progress=False,
    )
    files = ComponentFiles(COMPONENT, quantized, _files(out), weight_files(_files(out), source))
    return {
        name: _compiled(compiler, files, folder / f"compiled-{index}", threads)
        for index, (name, compiler) in enumerate(QUANTIZED.items())
    }


def _fused(fuse: Fuse, exported: Files, source: Files, out: Path) -> ComponentFiles:
    out.mkdir(parents=True)
    fuse.run({"program": exported}, out, progress=False)
    return ComponentFiles.read(COMPONENT, {"program": _files(out), "exported": {}, "source": source})


def _compiled(compiler: Compiler, files: ComponentFiles, out: Path, threads: int) -> Ours:
    out.mkdir(parents=True)
    compiled = compile_segment(compiler, files, whole(files), CPU, out, FiniteCheck(COMPONENT))
    engines = {(file.component, file.graph): Segments.whole(file) for file in compiled.files}
    return Ours(
        {graph: Interface(entry.inputs, entry.outputs) for graph, entry in compiled.graphs.items()},
        Executor(PlainFolder(out), engines, threads=threads),
        out / engines[COMPONENT, GRAPH].files[0].file,
        compiler,
    )


def _files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
