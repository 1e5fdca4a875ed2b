"""The `onnxruntime` engine on CPUs: float32 graphs, weights pre-cast and pre-transposed beside them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import onnx_ir as ir

from wanc.compiler.engines.compiler import Prober
from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.onnxruntime.masks import DTYPES, has_kernel
from wanc.compiler.engines.onnxruntime.passes import PASSES
from wanc.compiler.engines.onnxruntime.probe import OnnxRuntimeProber
from wanc.compiler.engines.products import onnxruntime_products
from wanc.compiler.graphs.values import attention_heads
from wanc.compiler.passes.rewrite import Pass
from wanc.runtime.backends.base import Backend
from wanc.runtime.backends.onnxruntime import OnnxRuntime, session_options

FUSED: Mapping[str, str] = {
    "Attention": "Attention",
    "MultiHeadAttention": "Attention",
    "RMSNormalization": "RMSNormalization",
    "SimplifiedLayerNormalization": "RMSNormalization",
    "RotaryEmbedding": "RotaryEmbedding",
}
"""Kernel → the canonical operator that it does all of."""


class OnnxRuntimeCompiler:
    """Build-time side of the engine."""

    engine: ClassVar[str] = "onnxruntime"
    passes: ClassVar[tuple[Pass, ...]] = PASSES

    def compile(self, component: str, graphs: Mapping[str, Path], weights: frozenset[Path]) -> Mapping[str, Path]:
        """It reads lowered graphs, and their weights beside them, as they are."""
        del component, weights
        return graphs

    def execute(self, path: Path) -> Backend | None:
        options = session_options(threads=1)
        options.enable_profiling = True
        options.profile_file_prefix = str(path.with_suffix(".profile"))
        return OnnxRuntime(path, threads=1, options=options)

    def has_kernel(self, node: ir.Node, opset: int) -> bool:
        tiled = node.op_type == "Attention" and attention_heads(node) > 0 and node.inputs[0].dtype in DTYPES
        return tiled or has_kernel(node, opset)

    def prober(self, path: Path) -> Prober | None:
        return OnnxRuntimeProber(path)

    def report(self, path: Path, executed: Backend | None) -> Kernels:
        """From the profile of one execution: an operator that was expanded to a function shows as its parts."""
        del path
        profile = cast(OnnxRuntime, executed).end_profiling()
        events: list[dict[str, Any]] = json.loads(profile.read_bytes())
        profile.unlink()
        by_type: Counter[tuple[str, str]] = Counter()
        for event in events:
            arguments = event.get("args", {})
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                by_type[arguments["op_name"], _dtype(arguments)] += 1
        fused: Counter[str] = Counter()
        for (kernel, _), count in by_type.items():
            if kernel in FUSED:
                fused[FUSED[kernel]] += count
        return Kernels(by_type, fused, onnxruntime_products(events))


def _dtype(arguments: Mapping[str, Any]) -> str:
    """The type of a kernel's first result, such as `float` or `int64`; profiles list {type: shape} for each."""
    results = arguments.get("output_type_shape") or [{}]
    return re.sub(r"\W", "", next(iter(results[0]), "none"))
