"""Building a segment's engines by wanc's own compile stage, and what that took, graph by graph."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.true_scale.programs import Inputs
from wanc.compiler.engines.compiled import FILE as COMPILED
from wanc.compiler.engines.compiled import Compiled
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.lowered_graph import InputShapes, LoweredGraph
from wanc.compiler.engines.stage import Compile
from wanc.compiler.engines.tensorrt.report import BuildReport
from wanc.compiler.engines.tensorrt_rtx.compiler import TensorRtRtxCompiler
from wanc.compiler.engines.tensorrt_rtx.engine import TensorRtRtxEngine
from wanc.compiler.program.program import Segment
from wanc.compiler.stages.worker import call_in_worker, run_in_worker
from wanc.runtime.engine_file import EngineFile
from wanc.words import Island

TARGET = "sm89"
ISLANDS: tuple[Island, ...] = ("residual", "modulation", "norm", "rope", "time")
"""What a recipe in bf16 has for this engine."""
MEASURED = ".measured.json"
Figures = dict[str, Any]


@dataclass(frozen=True)
class MeasuredCompiler(TensorRtRtxCompiler):
    """Builds each graph from a process of its own, whose children's peak is that of its builder alone."""

    def compile(
        self, component: str, graphs: Mapping[str, LoweredGraph], weights: frozenset[Path]
    ) -> Mapping[str, Path]:
        made: dict[str, Path] = {}
        for name, graph in graphs.items():
            made[name], figures = call_in_worker("build", _build, self, component, name, graph)
            made[name].with_name(made[name].name + MEASURED).write_text(json.dumps(figures))
        for path in weights:
            path.unlink()
        return made


@dataclass(frozen=True)
class MeasuredEngine(TensorRtRtxEngine):
    """The engine as it is, with a compiler that measures."""

    def compiler(self, target: str) -> Compiler:
        return MeasuredCompiler(target, self.compute, self.islands)


def _build(compiler: TensorRtRtxCompiler, component: str, name: str, graph: LoweredGraph) -> tuple[Path, Figures]:
    started = time.perf_counter()
    made = TensorRtRtxCompiler.compile(compiler, component, {name: graph}, frozenset())
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return made[name], {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_rss_bytes": usage.ru_maxrss * 1024,
    }


def build_segment(inputs: Inputs, segment: Segment, requests: Sequence[InputShapes], folder: Path) -> Figures:
    """What building a segment took and what it made, which is left in `folder`, to be made.

    `peak_rss_bytes` is what `engine.max_build_memory` bounds: the most that a process of the compile stage held,
    builders included.
    """
    folder.mkdir()
    started, before = time.perf_counter(), _processor_seconds()
    stage = Compile(MeasuredEngine("bf16", ISLANDS), segment, TARGET, requests=tuple(requests))
    peak = run_in_worker(stage, inputs, folder, progress=None)
    compiled = Compiled.read(folder / COMPILED)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(_processor_seconds() - before, 1),
        "load": round(os.getloadavg()[0], 1),
        "peak_rss_bytes": peak,
        "graphs": {file.graph: _figures(file, folder) for file in compiled.files},
    }


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _figures(file: EngineFile, folder: Path) -> Figures:
    engine = folder / file.file
    report = BuildReport.read(engine)
    by_numbers: dict[str, list[str]] = {}
    for linear, numbers in sorted(report.linears.items()):
        by_numbers.setdefault(numbers, []).append(linear)
    return {
        **json.loads(engine.with_name(engine.name + MEASURED).read_bytes()),
        "engine_bytes": engine.stat().st_size,
        "activation_bytes": report.memory.activation_bytes,
        "weight_bytes": report.memory.weight_bytes,
        "kernels": report.kernels,
        "linears": by_numbers,
        "fused": list(report.fused),
        "unfused": list(report.unfused),
    }


def check_kernels(figures: Figures, integers: Collection[str], fused: int, unfused: Collection[str] = ()) -> None:
    """Raises AssertionError unless a segment's engines multiply the Linears named as Int8 × Int8, and so many
    attentions are one kernel each, and those that are not are the `unfused`.
    """
    graphs = figures["graphs"].values()
    found = {name for graph in graphs for name in graph["linears"].get("Int8 × Int8", ())}
    assert found == set(integers), sorted(set(integers) ^ found)[:3]
    assert sum(len(graph["fused"]) for graph in graphs) == fused
    assert {name for graph in graphs for name in graph["unfused"]} == set(unfused)
