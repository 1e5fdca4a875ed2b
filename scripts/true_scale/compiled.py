"""Blocks of a denoiser in INT8, a segment each, compiled for ONNX Runtime on a CPU by wanc's own stage.

The codes are drawn, so that nothing has to be calibrated, and memory is that of one block whatever their number.

ONNX Runtime is the engine that holds least: of a product the packed weights and nothing else, and while a file is
opened one tensor more. OpenVINO keeps two copies, and packs at the first execution, so that less of that can be done
ahead.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from scripts.true_scale.disk import Extent, joined
from scripts.true_scale.drawn import DrawnCodes
from wanc.compiler.engines.compiled import FILE, Compiled
from wanc.compiler.engines.onnxruntime.engine import OnnxRuntimeEngine
from wanc.compiler.engines.segment import CPU, FOLDER
from wanc.compiler.engines.stage import Compile
from wanc.compiler.program.graph_file import load
from wanc.compiler.program.program import Segment
from wanc.compiler.stages.worker import call_in_worker, run_in_worker
from wanc.runtime import safetensors
from wanc.runtime.denoise import TIMESTEP
from wanc.runtime.engine_file import EngineFile, Key
from wanc.runtime.executor import Executor
from wanc.runtime.folder import PlainFolder
from wanc.runtime.golden import tensor_name
from wanc.runtime.interface import Interface
from wanc.runtime.model import HIGH
from wanc.runtime.parts import Parts
from wanc.runtime.segments import Segments
from wanc.runtime.tables import Table, table_file
from wanc.runtime.value import as_array

TIME = "time"


def segments_of(blocks: int) -> list[Segment]:
    """Each block by itself."""
    return [Segment(HIGH, index, index, index + 1, CPU) for index in range(blocks)]


@dataclass(frozen=True)
class CompiledBlocks:
    """Engine files below `folder`, as a bundle has them, and the interfaces of the graphs that they make up."""

    folder: Path
    files: tuple[EngineFile, ...]
    graphs: Mapping[str, Interface]

    @classmethod
    def build(
        cls, drawn: DrawnCodes, segments: Sequence[Segment], timesteps: Sequence[float], folder: Path
    ) -> CompiledBlocks:
        """Compile segments whose codes are drawn, into `folder`; what timesteps give is a table, as in a bundle."""
        made = [cls._compile(drawn, segment, folder) for segment in segments]
        graphs = {name: Interface(graph.inputs, graph.outputs) for name, graph in made[0].graphs.items()}
        blocks = cls(folder, tuple(file for one in made for file in one.files), graphs)
        call_in_worker("tables", blocks.tabulate, timesteps)
        return blocks

    @staticmethod
    def _compile(drawn: DrawnCodes, segment: Segment, folder: Path) -> Compiled:
        own = folder / f"segment-{segment.index}"
        own.mkdir(parents=True)
        run_in_worker(Compile(OnnxRuntimeEngine(), segment, CPU), drawn.inputs, own, progress=None)
        place = folder / FOLDER / HIGH
        place.mkdir(parents=True, exist_ok=True)
        for path in (own / FOLDER / HIGH).iterdir():
            path.rename(place / path.name)  # what segments share is named by what is in it
        compiled = Compiled.read(own / FILE)
        shutil.rmtree(own)
        return compiled

    def tabulate(self, timesteps: Sequence[float]) -> None:
        """Write what depends on the timestep alone, as `tables` would."""
        executor = Executor(PlainFolder(self.folder), {(HIGH, TIME): self.of(TIME)})
        rows: list[dict[str, NDArray[Any]]] = []
        for timestep in timesteps:
            given = {TIMESTEP: np.array([timestep], np.float32)}
            found = executor.run(HIGH, TIME, given)
            rows.append({**given, **{name: as_array(value) for name, value in found.items()}})
        named = {tensor_name(HIGH, TIME, name): np.stack([row[name] for row in rows]) for name in rows[0]}
        safetensors.write(self.folder / table_file(HIGH, TIME), named)

    @property
    def executed(self) -> list[EngineFile]:
        """What is executed for a video: all that stands in no table."""
        return [file for file in self.files if file.graph != TIME]

    @property
    def bytes(self) -> int:
        """What the engines of these take when all of them are open."""
        return sum(file.memory.opened for file in self.executed if file.memory is not None)

    def of(self, graph: str) -> Segments:
        """What executes a graph."""
        return Segments.of(self.graphs[graph], [file for file in self.files if file.graph == graph], str(self.folder))

    def executor(self, budget: int | None) -> Executor:
        """As a bundle's pipeline has it; what stands in a table is not executed."""
        engines: dict[Key, Segments] = {(HIGH, graph): self.of(graph) for graph in self.graphs if graph != TIME}
        return Executor(PlainFolder(self.folder), engines, budget=budget)

    def parts(self, executor: Executor) -> Parts:
        """Those of one request."""
        table = Table(self.folder / table_file(HIGH, TIME), HIGH, TIME, self.graphs[TIME])
        return Parts(HIGH, self.graphs, executor, {TIME: table})

    def extents(self) -> dict[Path, list[Extent]]:
        """Where on disk all lies that the engines read: their graphs, and their weights in the files beside them."""
        found: dict[Path, list[Extent]] = {}
        for file in self.executed:
            path = self.folder / file.file
            found.setdefault(path, []).append(Extent(0, path.stat().st_size))
            for value in load(path).graph.initializers.values():
                tensor = value.const_value
                if isinstance(tensor, ir.ExternalTensor):
                    beside = path.with_name(str(tensor.location))
                    found.setdefault(beside, []).append(Extent(tensor.offset or 0, tensor.length or tensor.nbytes))
        return {path: joined(parts) for path, parts in found.items()}
