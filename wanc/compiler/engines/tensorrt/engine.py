"""TensorRT: engines for data-centre GPUs, which are built on a machine that has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.distributions import ON_TARGET
from wanc.compiler.engines.engine import Engine
from wanc.words import Compute, Island


@dataclass(frozen=True)
class TensorRtEngine(Engine):
    """`compute` is the format of products; `islands` stay in float32 where it has 16 bits.

    With `weight_streaming` an engine may leave weights in the host's memory and fetch them as it goes. Nothing of the
    library is needed here: what is sealed are lowered graphs.
    """

    name: ClassVar[str] = "tensorrt"
    tools: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = "tensorrt"
    is_for_sizes: ClassVar[bool] = True

    compute: Compute
    islands: tuple[Island, ...]
    weight_streaming: bool = False

    @property
    def version(self) -> str:
        """That of the library which engines will be built with."""
        return ON_TARGET["tensorrt-cu12"]

    def copies(self, graphs: int) -> float:
        """One, of which all graphs take theirs; in 16 bits it is half of one."""
        del graphs
        return 1 if self.compute == "fp32" else 0.5

    def compiler(self, target: str) -> Compiler:
        del target  # what is lowered is the same for all
        from wanc.compiler.engines.tensorrt.compiler import TensorRtCompiler

        return TensorRtCompiler(self.compute, self.islands, self.weight_streaming)
