"""The lowering for ONNX Runtime: its passes in their order. To list them needs no engine.

On CUDA it has kernels of its own for videos, and none for Linears of codes: those passes are the CPU's.
"""

from __future__ import annotations

from wanc.compiler.engines.onnxruntime.frames import FRAMES_FIRST
from wanc.compiler.engines.onnxruntime.int8 import INTEGERS, SHARED_CODES
from wanc.compiler.engines.onnxruntime.kernels import KERNELS
from wanc.compiler.engines.onnxruntime.masks import MASKS
from wanc.compiler.engines.onnxruntime.packed import PACKED
from wanc.compiler.engines.ranks import RANKS
from wanc.compiler.passes.order import ordered

PASSES = ordered((INTEGERS, PACKED, SHARED_CODES, RANKS, MASKS, KERNELS, FRAMES_FIRST))
CUDA_PASSES = ordered((RANKS, MASKS, KERNELS))
