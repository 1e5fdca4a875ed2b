"""The `onnxruntime` engine on CPUs: float32 graphs, weights pre-cast and pre-transposed beside them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar, cast

import onnx_ir as ir

from wanc.compiler.engines.compiler import Prober
from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.engines.onnxruntime.masks import DTYPES, has_kernel
from wanc.compiler.engines.onnxruntime.passes import PASSES
from wanc.compiler.engines.onnxruntime.probe import OnnxRuntimeProber
from wanc.compiler.engines.products import onnxruntime_products
from wanc.compiler.graphs.quantized_linears import CODES
from wanc.compiler.graphs.values import attention_heads
from wanc.compiler.passes.rewrite import Pass
from wanc.compiler.program.graph_file import load, save
from wanc.runtime.backends.base import Backend
from wanc.runtime.backends.onnxruntime import ELSEWHERE, QUANTIZED, OnnxRuntime, session_options
from wanc.runtime.engine_file import EngineMemory

FUSED: Mapping[str, str] = {
    "Attention": "Attention",
    "MultiHeadAttention": "Attention",
    "RMSNormalization": "RMSNormalization",
    "SimplifiedLayerNormalization": "RMSNormalization",
    "RotaryEmbedding": "RotaryEmbedding",
}
"""Kernel → the canonical operator that it does all of."""
EXECUTED = "model_run"
"""The event of a profile that stands behind all others of an execution."""
BYTES = (ir.DataType.INT8, ir.DataType.UINT8)
INTEGERS = (*BYTES, *(ir.DataType[name] for name in ("INT4", "UINT4", "INT16", "UINT16", "INT32")))


class OnnxRuntimeCompiler:
    """Build-time side of the engine."""

    engine: ClassVar[str] = "onnxruntime"
    built: ClassVar[str | None] = None
    turns_weights: ClassVar[bool] = True
    has_collectives: ClassVar[bool] = False
    passes: ClassVar[tuple[Pass, ...]] = PASSES

    def lowering(self, component: str, graph: str) -> tuple[Pass, ...]:
        del component, graph
        return self.passes

    def compile(
        self, component: str, graphs: Mapping[str, LoweredGraph], weights: frozenset[Path]
    ) -> Mapping[str, Path]:
        """It reads lowered graphs, and their weights beside them, as they are; those that came quantised are marked."""
        del component, weights
        paths = {name: graph.path for name, graph in graphs.items()}
        for path in paths.values():
            model = load(path)
            if came_quantized(model):
                model.metadata_props[QUANTIZED] = ELSEWHERE
                save(model, path)
        return paths

    def execute(self, path: Path) -> Backend | None:
        options = session_options(threads=1)
        options.enable_profiling = True
        options.profile_file_prefix = str(path.with_suffix(".profile"))
        return OnnxRuntime(path, threads=1, options=options)

    def memory(self, path: Path) -> EngineMemory | None:
        """Weights as they are: those of products are packed, one after the other, and their files' pages let go."""
        sizes = [tensor.nbytes for tensor in _weights(load(path))]
        return EngineMemory(sum(sizes), sum(sizes) + max(sizes, default=0))

    def has_kernel(self, node: ir.Node, opset: int) -> bool:
        query = node.inputs[0]
        is_tiled = node.op_type == "Attention" and query is not None and query.dtype in DTYPES
        return (is_tiled and attention_heads(node) > 0) or has_kernel(node, opset)

    def prober(self, path: Path) -> Prober | None:
        return OnnxRuntimeProber(path)

    def report(self, path: Path, executed: Backend | None) -> Kernels:
        """From the profile of the first execution: an operator that was expanded to a function shows as its parts."""
        del path
        profile = cast(OnnxRuntime, executed).end_profiling()
        profiled: list[dict[str, Any]] = json.loads(profile.read_bytes())
        events = list(takewhile(lambda event: event["name"] != EXECUTED, profiled))
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


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in (model.graph, *model.graph.subgraphs()):
        yield from (value.const_value for value in graph.initializers.values() if value.const_value is not None)


def came_quantized(model: ir.Model) -> bool:
    """Whether a graph rounds to codes of 8 bits, and did so before wanc saw it.

    Of other Q/DQ the library makes kernels that are not there (fp8), or that round what the graph does not: where only
    weights are codes, it is as fast with floats that are made of them once.
    """
    if any(CODES in str(value.name) for value in model.graph.initializers.values()):
        return False
    rounded = _codes(model, "QuantizeLinear")
    return not rounded.isdisjoint(BYTES) and (rounded | _codes(model, "DequantizeLinear")).issubset(INTEGERS)


def _codes(model: ir.Model, op_type: str) -> set[ir.DataType]:
    """The types of the codes that nodes of this operator give or take, as far as they are known."""
    found: set[ir.DataType] = set()
    for node in model.graph.all_nodes():
        if node.op_type == op_type:
            codes = node.outputs[0] if op_type == "QuantizeLinear" else node.inputs[0]
            zero = node.inputs[2] if len(node.inputs) > 2 else None
            types = [value.dtype for value in (codes, zero) if value is not None and value.dtype is not None]
            found.update(types[:1] or ([ir.DataType.UINT8] if zero is None else []))
    return found


def _dtype(arguments: Mapping[str, Any]) -> str:
    """The type of a kernel's first result, such as `float` or `int64`; profiles list {type: shape} for each."""
    results = arguments.get("output_type_shape") or [{}]
    return re.sub(r"\W", "", next(iter(results[0]), "none"))
