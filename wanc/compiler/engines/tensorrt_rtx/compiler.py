"""The `tensorrt-rtx` engine: one file per graph and target, for all of a recipe's shapes. It runs on no machine here.

Products, attention and convolutions are in 16 bits, and what the islands name in float32. That costs no kernel and no
memory: the casts become parts of what stands around them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.engines.tensorrt.ahead_of_time import AheadOfTimeCompiler
from wanc.compiler.engines.tensorrt.building import BuildTask
from wanc.compiler.engines.tensorrt.log import parse_log
from wanc.compiler.engines.tensorrt.process import build_in_process
from wanc.compiler.engines.tensorrt.profiles import profiles_of
from wanc.compiler.engines.tensorrt.report import BuildReport
from wanc.compiler.engines.tensorrt_rtx.build import VERSION
from wanc.compiler.engines.tensorrt_rtx.header import header_fault
from wanc.compiler.program.graph_file import load
from wanc.errors import EXIT_REFUSED, UserError
from wanc.runtime.backends.base import Backend
from wanc.words import Compute, Island

BUILD = "wanc.compiler.engines.tensorrt_rtx.build"
ENGINE_SUFFIX = ".engine"


@dataclass(frozen=True)
class TensorRtRtxCompiler(AheadOfTimeCompiler):
    """Build-time side of the engine, for one target such as `sm89`."""

    engine: ClassVar[str] = "tensorrt-rtx"
    built: ClassVar[str | None] = None
    turns_weights: ClassVar[bool] = True

    target: str
    compute: Compute
    islands: tuple[Island, ...]
    weight_streaming: bool = field(default=False, kw_only=True)

    def compile(
        self, component: str, graphs: Mapping[str, LoweredGraph], weights: frozenset[Path]
    ) -> Mapping[str, Path]:
        """An engine for each graph, with its weights in it: what they were read from goes.

        Beside each lies what the build's log said. Raises UserError where the library is missing, of another version,
        or has not enough memory, and CheckpointError where it does not take a graph.
        """
        made: dict[str, Path] = {}
        for name, graph in graphs.items():
            made[name] = graph.path.with_suffix(ENGINE_SUFFIX)
            self._build(f"{component}/{name}", graph, made[name])
            graph.path.unlink()
        for path in weights:
            path.unlink()
        return made

    def _build(self, where: str, graph: LoweredGraph, engine: Path) -> None:
        model = load(graph.path)
        profiles = tuple(profiles_of(model, graph))
        values, streaming = tuple(graph.shapes), self.weight_streaming
        task = BuildTask(str(graph.path), str(engine), self.target, profiles, values, streaming)
        outcome = build_in_process(BUILD, task, where, self.engine)
        if fault := header_fault(engine, self.target, VERSION):
            raise UserError(f"{where}: {self.engine} has built another file: {fault}", exit_code=EXIT_REFUSED)
        BuildReport.of(parse_log(outcome.messages), model, graph.example).write(engine)

    def report(self, path: Path, executed: Backend | None) -> Kernels:
        """From the build's log."""
        del executed
        return BuildReport.read(path).as_kernels
