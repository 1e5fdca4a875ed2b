"""Lowered graphs executed by the host at a small size, against the canonical graphs in float32."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scripts.true_scale.building import ISLANDS, TARGET, Figures
from scripts.true_scale.programs import Inputs
from wanc.calibration.weights import sqnr_db
from wanc.compiler.bundle.golden import Arrays, Execute, Golden
from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.engines.segment import FOLDER, whole
from wanc.compiler.engines.stage import Compile
from wanc.compiler.engines.tensorrt_rtx.compiler import TensorRtRtxCompiler
from wanc.compiler.engines.tensorrt_rtx.engine import TensorRtRtxEngine
from wanc.compiler.graphs.lowerable import lowerable
from wanc.compiler.host.lowered import HostGraph
from wanc.compiler.host.reference import Reference
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.stages.worker import call_in_worker, run_in_worker
from wanc.runtime.memory import peak_rss_bytes

Array = np.ndarray[Any, Any]
Sizes = Mapping[str, int]
EQUAL = 200.0


@dataclass(frozen=True)
class Lowering(TensorRtRtxCompiler):
    """Lowers graphs, and leaves them as they are for what executes them."""

    def compile(
        self, component: str, graphs: Mapping[str, LoweredGraph], weights: frozenset[Path]
    ) -> Mapping[str, Path]:
        del component, weights
        return {name: graph.path for name, graph in graphs.items()}


@dataclass(frozen=True)
class LoweringEngine(TensorRtRtxEngine):
    """The engine up to what it would build of."""

    def compiler(self, target: str) -> Compiler:
        return Lowering(target, self.compute, self.islands)


def on_host(inputs: Inputs, component: str, sizes: Sizes, folder: Path) -> Figures:
    """Lower a component into `folder`, to be made, and execute it twice on noise, at `sizes`.

    `sqnr_db` is how far what the lowered graphs give, one behind the other, is below what the canonical ones do.
    """
    folder.mkdir()
    lowered = folder / "lowered"
    lowered.mkdir()
    files = ComponentFiles.read(component, inputs)
    run_in_worker(Compile(LoweringEngine("bf16", ISLANDS), whole(files), TARGET), inputs, lowered, progress=None)
    narrow = call_in_worker("host", _lowered, files, sizes, lowered)
    shutil.rmtree(lowered)  # the canonical graphs are written in float32, which takes as much again
    exact = call_in_worker("host", _canonical, files, sizes, folder / "canonical")
    return {
        "seconds": narrow.seconds,
        "cpu_seconds": narrow.cpu_seconds,
        "load": round(os.getloadavg()[0], 1),
        "peak_rss_bytes": narrow.peak_rss_bytes,
        "reference": {"seconds": exact.seconds, "peak_rss_bytes": exact.peak_rss_bytes},
        "sqnr_db": _worst(narrow.outputs, exact.outputs),
        "sizes": dict(sizes),
    }


@dataclass(frozen=True)
class Executed:
    """What the graphs of a component gave, and what that took, opening them included."""

    outputs: Mapping[str, Array]
    seconds: float
    cpu_seconds: float
    peak_rss_bytes: int


def _lowered(files: ComponentFiles, sizes: Sizes, folder: Path) -> Executed:
    def execute(graph: str, given: Arrays) -> Arrays:
        (path,) = folder.glob(f"{FOLDER}/{files.name}/{graph}.*.onnx")
        return HostGraph(path, path.parent).run(given)

    return _executed(files, sizes, execute)


def _canonical(files: ComponentFiles, sizes: Sizes, folder: Path) -> Executed:
    return _executed(files, sizes, Reference(files, lowerable(files), folder).run)


def _executed(files: ComponentFiles, sizes: Sizes, execute: Execute) -> Executed:
    """As for a golden record: a later graph is given what the earlier ones gave."""
    graphs = {
        name: replace(graph, example={**graph.example, **sizes}) for name, graph in files.component.graphs.items()
    }
    sized = replace(files, component=replace(files.component, graphs=graphs))
    started, before, golden = time.perf_counter(), time.process_time(), Golden()
    golden.record(files.name, {name: entry.graph for name, entry in lowerable(sized).items()}, {}, execute)
    return Executed(
        golden.expected,
        round(time.perf_counter() - started, 1),
        round(time.process_time() - before, 1),
        peak_rss_bytes(),
    )


def _worst(narrow: Mapping[str, Array], exact: Mapping[str, Array]) -> dict[str, float]:
    """By graph, of its outputs that are floats; EQUAL where nothing differs."""
    found: dict[str, float] = {}
    for name, array in exact.items():
        if array.dtype.kind == "f":
            graph = name.split("/")[1]
            found[graph] = min(found.get(graph, EQUAL), round(sqnr_db(narrow[name], array), 1))
    return found
