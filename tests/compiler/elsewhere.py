"""An engine that is compiled here and executed elsewhere, in a module that a worker's process can import by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from wanc.compiler.engines.engine import Engine
from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
from wanc.compiler.engines.products import Products
from wanc.compiler.program.graph_file import load
from wanc.runtime.backends.base import Backend
from wanc.words import FUSED_OPERATORS


class BuildOnlyCompiler(OnnxRuntimeCompiler):
    """Writes graphs for a machine that is not there, and a log of what it has built."""

    engine: ClassVar[str] = "onnxruntime"

    def compile(
        self, component: str, graphs: Mapping[str, LoweredGraph], weights: frozenset[Path]
    ) -> Mapping[str, Path]:
        made: dict[str, Path] = {}
        for graph, path in ((name, entry.path) for name, entry in graphs.items()):
            made[graph] = path.with_suffix(".bin")
            operators = [node.op_type for node in load(path).graph]
            log = {operator: operators.count(operator) for operator in sorted(set(operators))}
            made[graph].write_text(json.dumps(log))
            path.unlink()
        return made

    def execute(self, path: Path) -> Backend | None:
        return None

    def memory(self, path: Path) -> None:
        return None

    def prober(self, path: Path) -> None:
        return None

    def report(self, path: Path, executed: Backend | None) -> Kernels:
        assert executed is None
        log: dict[str, int] = json.loads(path.read_text())
        fused = {name: log[name] for name in FUSED_OPERATORS if name in log}
        # What com.microsoft calls attention.
        fused["Attention"] = fused.get("Attention", 0) + log.get("MultiHeadAttention", 0)
        return Kernels({(name, "float"): count for name, count in log.items()}, fused, Products(0, 0, 0))


@dataclass(frozen=True)
class BuildOnly(Engine):
    name: ClassVar[str] = "onnxruntime"
    tools: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    @property
    def code(self) -> str:
        return "none of wanc's"

    def compiler(self, target: str) -> BuildOnlyCompiler:
        return BuildOnlyCompiler()
