"""OpenVINO on CPUs, in float32 or with products in bfloat16 between islands of float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.distributions import DISTRIBUTIONS
from wanc.compiler.engines.engine import Engine
from wanc.words import Island


@dataclass(frozen=True)
class OpenVinoEngine(Engine):
    """`compute` is fp32 or bf16; `islands` stay in float32 where it is bf16."""

    name: ClassVar[str] = "openvino"
    tools: ClassVar[tuple[str, ...]] = DISTRIBUTIONS["openvino"]
    extra: ClassVar[str] = "openvino"

    compute: str = "fp32"
    islands: tuple[Island, ...] = ()

    def compiler(self, target: str) -> Compiler:
        del target  # there is one
        from wanc.compiler.engines.openvino.compiler import OpenVinoCompiler

        return OpenVinoCompiler(self.compute, self.islands)
