"""ONNX Runtime on CPUs and on CUDA, float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wanc.compiler.engines.compiler import Compiler
from wanc.compiler.engines.distributions import DISTRIBUTIONS
from wanc.compiler.engines.engine import Engine
from wanc.words import CUDA


@dataclass(frozen=True)
class OnnxRuntimeEngine(Engine):
    """There is nothing to choose."""

    name: ClassVar[str] = "onnxruntime"
    tools: ClassVar[tuple[str, ...]] = DISTRIBUTIONS["onnxruntime"]

    def compiler(self, target: str) -> Compiler:
        from wanc.compiler.engines.onnxruntime.compiler import OnnxRuntimeCompiler
        from wanc.compiler.engines.onnxruntime.cuda import CudaCompiler

        return CudaCompiler() if target == CUDA else OnnxRuntimeCompiler()
