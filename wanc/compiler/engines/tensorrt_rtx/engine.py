"""TensorRT-RTX: engines for GPUs of one target each, built without one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.distributions import DISTRIBUTIONS
from wanc.compiler.engines.engine import Engine
from wanc.words import Compute, Island


@dataclass(frozen=True)
class TensorRtRtxEngine(Engine):
    """`compute` is the format of products; `islands` stay in float32 where it has 16 bits.

    With `weight_streaming` an engine may leave weights in the host's memory, and fetch them as it goes.
    """

    name: ClassVar[str] = "tensorrt-rtx"
    tools: ClassVar[tuple[str, ...]] = DISTRIBUTIONS["tensorrt-rtx"]
    extra: ClassVar[str] = "tensorrt-rtx"
    is_for_sizes: ClassVar[bool] = True

    compute: Compute
    islands: tuple[Island, ...]
    weight_streaming: bool = False

    def compiler(self, target: str) -> Compiler:
        from wanc.compiler.engines.tensorrt_rtx.compiler import TensorRtRtxCompiler

        return TensorRtRtxCompiler(target, self.compute, self.islands, weight_streaming=self.weight_streaming)
