"""The `onnxruntime` engine on CPUs: float32 graphs, weights pre-cast and pre-transposed beside them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.lowering import CompiledComponent, lower
from wanc.compiler.engines.onnxruntime.passes import PASSES
from wanc.compiler.engines.onnxruntime.probe import OnnxRuntimeProber
from wanc.compiler.engines.products import onnxruntime_products
from wanc.compiler.engines.quantization_check import Prober
from wanc.compiler.program.program import ProgramComponent
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
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

    def compile_component(
        self, name: str, component: ProgramComponent, graphs: Files, weights: Files, out: Path, finite: FiniteCheck
    ) -> CompiledComponent:
        lowered = lower(name, component, graphs, weights, out / "engines" / name, finite, PASSES)
        files = {graph: path.relative_to(out).as_posix() for graph, path in lowered.files.items()}
        compiled = {graph: replace(entry, file=files[graph]) for graph, entry in component.graphs.items()}
        stored = {key: replace(entry, file=f"engines/{name}/{entry.file}") for key, entry in lowered.weights.items()}
        return CompiledComponent(compiled, stored, lowered.reports)

    def open(self, path: Path) -> Backend:
        options = session_options(threads=1)
        options.enable_profiling = True
        options.profile_file_prefix = str(path.with_suffix(".profile"))
        return OnnxRuntime(path, threads=1, options=options)

    def prober(self, path: Path) -> Prober:
        return OnnxRuntimeProber(path)

    def kernels(self, backend: Backend) -> Kernels:
        """From the profile of one execution: an operator that was expanded to a function shows as its parts."""
        path = cast(OnnxRuntime, backend).end_profiling()
        events: list[dict[str, Any]] = json.loads(path.read_bytes())
        path.unlink()
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
