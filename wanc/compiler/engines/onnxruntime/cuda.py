"""The `onnxruntime` engine for CUDA: the same graphs with weights beside them, and no GPU to write them.

Which kernels there are is what the library's own list of them says: of the standard operators those of attention, with
masks as well, of RMSNormalization and of RotaryEmbedding, and com.microsoft's that `kernels.py` asks for, all in
float32. Nothing is executed where a bundle is built, GPU or not, so that its bytes are the same everywhere: the host
computes the golden record, in float32 as the GPU does, and the bundle's self-test compares them on the target.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import ClassVar

from wanc.compiler.engines.compiler import Prober
from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.onnxruntime.compiler import FUSED, OnnxRuntimeCompiler
from wanc.compiler.engines.onnxruntime.passes import CUDA_PASSES
from wanc.compiler.engines.products import Products
from wanc.compiler.passes.rewrite import Pass
from wanc.compiler.program.graph_file import load
from wanc.runtime.backends.base import Backend
from wanc.runtime.engine_file import EngineMemory

NO_TYPE = "none"


class CudaCompiler(OnnxRuntimeCompiler):
    """Build-time side of the engine, for whichever GPU will be there."""

    passes: ClassVar[tuple[Pass, ...]] = CUDA_PASSES

    def execute(self, path: Path) -> Backend | None:
        """Nothing: see above."""
        del path

    def memory(self, path: Path) -> EngineMemory | None:
        """Nothing of the processor's that lasts."""
        del path

    def prober(self, path: Path) -> Prober | None:
        """Nothing: Linears of codes are refused."""
        del path

    def report(self, path: Path, executed: Backend | None) -> Kernels:
        """What the graph asks for: the library makes its kernels of that when it is opened."""
        del executed
        by_type: Counter[tuple[str, str]] = Counter()
        fused: Counter[str] = Counter()
        for node in load(path).graph.all_nodes():
            dtype = node.outputs[0].dtype
            by_type[node.op_type, dtype.name.lower() if dtype else NO_TYPE] += 1
            if node.op_type in FUSED:
                fused[FUSED[node.op_type]] += 1
        return Kernels(by_type, fused, Products(0, 0, 0))
