"""What a compiler of TensorRT does where there is no GPU: lower, and execute nothing."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import onnx_ir as ir

from wanc.compiler.engines.compiler import Prober
from wanc.compiler.engines.tensorrt.kernels import has_kernel
from wanc.compiler.engines.tensorrt.passes import lowering_passes
from wanc.compiler.passes.rewrite import Pass
from wanc.runtime.backends.base import Backend
from wanc.runtime.engine_file import EngineMemory
from wanc.words import Compute, Island


class AheadOfTimeCompiler:
    """The part of `Compiler` that both editions share. `islands` stay in float32 where `compute` has 16 bits."""

    has_collectives: ClassVar[bool] = True

    compute: Compute
    islands: tuple[Island, ...]

    def lowering(self, component: str, graph: str) -> tuple[Pass, ...]:
        return lowering_passes(component, graph, self.compute, self.islands)

    def execute(self, path: Path) -> Backend | None:
        """Nothing: it takes a GPU."""
        del path

    def has_kernel(self, node: ir.Node, opset: int) -> bool:
        del opset
        return has_kernel(node)

    def memory(self, path: Path) -> EngineMemory | None:
        """Nothing of the processor's that lasts."""
        del path

    def prober(self, path: Path) -> Prober | None:
        """Nothing, either."""
        del path
