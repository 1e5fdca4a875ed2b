"""The `tensorrt` engine where there is no GPU: lowered graphs with their weights, and how engines are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.engines.tensorrt.ahead_of_time import AheadOfTimeCompiler
from wanc.compiler.engines.tensorrt.asked import asked_kernels
from wanc.compiler.engines.tensorrt.on_target import BuildSettings
from wanc.compiler.engines.tensorrt.profiles import profiles_of
from wanc.compiler.program.graph_file import load
from wanc.runtime.backends.base import Backend
from wanc.runtime.engine_file import ON_TARGET
from wanc.words import Compute, Island


@dataclass(frozen=True)
class TensorRtCompiler(AheadOfTimeCompiler):
    """Build-time side of the engine, the same for every target."""

    engine: ClassVar[str] = "tensorrt"
    built: ClassVar[str | None] = ON_TARGET
    turns_weights: ClassVar[bool] = True

    compute: Compute
    islands: tuple[Island, ...]
    weight_streaming: bool

    def compile(
        self, component: str, graphs: Mapping[str, LoweredGraph], weights: frozenset[Path]
    ) -> Mapping[str, Path]:
        """The graphs as they are, beside each the settings with which its engine is to be built."""
        del component, weights
        for graph in graphs.values():
            profiles = tuple(profiles_of(load(graph.path), graph))
            BuildSettings(profiles, tuple(graph.shapes), graph.example, self.weight_streaming).write(graph.path)
        return {name: graph.path for name, graph in graphs.items()}

    def report(self, path: Path, executed: Backend | None) -> Kernels:
        """What the graph asks for."""
        del executed
        return asked_kernels(load(path), BuildSettings.read(path, path.name).example)
