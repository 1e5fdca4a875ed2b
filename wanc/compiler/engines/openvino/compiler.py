"""The `openvino` engine on CPUs: an IR per graph, in float32, or with its products in bfloat16.

In bfloat16 everything but products, softmax and the reshapes between them is an island: it stays in float32, because
nine tenths of what bfloat16 costs in accuracy come from the residual stream and the modulation. So do whole graphs that
take little of the time and whose errors show: the timestep's, and the decoder of the VAE. The mark that keeps an
operation in float32 is OpenVINO's own, the one behind `disable_fp16_compression`; it is honoured only in a model that
was read from a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import cast

import openvino

from wanc.compiler.engines.kernels import Kernels
from wanc.compiler.engines.lowering import CompiledComponent, lower
from wanc.compiler.engines.openvino.passes import PASSES
from wanc.compiler.engines.openvino.probe import OpenVinoProber
from wanc.compiler.engines.products import is_attention, openvino_products
from wanc.compiler.engines.quantization_check import Prober
from wanc.compiler.program.program import ProgramComponent
from wanc.compiler.stages.stage import Files
from wanc.compiler.weights.finite import FiniteCheck
from wanc.errors import CheckpointError
from wanc.recipe.schema import Island
from wanc.runtime.backends.base import Backend
from wanc.runtime.backends.openvino import PRECISION, OpenVino, core

PRECISE = "precise_0"
ISLANDS: Mapping[Island, tuple[str, ...]] = {
    "residual": ("Add", "Subtract"),
    "modulation": ("Multiply", "Divide"),
    "norm": ("MVN", "RMS", "Power", "ReduceMean", "ReduceSum", "Sqrt", "ReduceL2"),
    "rope": ("RoPE", "Sin", "Cos"),
}
"""The operations, by OpenVINO's names, of each kind of island."""
WHOLE: Mapping[Island, tuple[str, str]] = {"time": ("*", "time"), "vae": ("vae_decoder", "*")}
"""The graphs that are islands as a whole, as patterns of their component and name."""
FUSED = {"ScaledDotProductAttention": "Attention", "RMS": "RMSNormalization", "RoPE": "RotaryEmbedding"}
PARTS_OF_NO_KERNEL = ("Input", "Output", "Constant", "Const", "Parameter", "Result")


@dataclass(frozen=True)
class OpenVinoCompiler:
    """Build-time side of the engine."""

    compute: str
    islands: tuple[Island, ...]

    def compile_component(
        self, name: str, component: ProgramComponent, graphs: Files, weights: Files, out: Path, finite: FiniteCheck
    ) -> CompiledComponent:
        folder = out / "engines" / name
        lowered = lower(name, component, graphs, weights, folder, finite, PASSES)
        compiled = dict(component.graphs)
        for graph, path in lowered.files.items():
            model = _read(path, where=f"{name}/{graph}")
            if self.compute == "bf16" and not self._is_island(name, graph):
                model.set_rt_info("bf16", PRECISION)
                _mark(model, self.islands)
            openvino.save_model(model, path.with_suffix(".xml"), compress_to_fp16=False)
            del model  # it maps the weights that go now
            compiled[graph] = replace(compiled[graph], file=path.with_suffix(".xml").relative_to(out).as_posix())
            path.unlink()
        for stored in {entry.file for entry in lowered.weights.values()}:
            (folder / stored).unlink()
        return CompiledComponent(compiled, {}, lowered.reports)

    def _is_island(self, component: str, graph: str) -> bool:
        patterns = [WHOLE[island] for island in self.islands if island in WHOLE]
        return any(fnmatch(component, one) and fnmatch(graph, other) for one, other in patterns)

    def open(self, path: Path) -> Backend:
        return OpenVino(path, threads=1)

    def prober(self, path: Path) -> Prober:
        return OpenVinoProber(path)

    def kernels(self, backend: Backend) -> Kernels:
        """From the graph that the CPU plugin executes."""
        by_type: Counter[tuple[str, str]] = Counter()
        fused: Counter[str] = Counter()
        executed = cast(OpenVino, backend)
        for node in executed.compiled.get_runtime_model().get_ordered_ops():
            info = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
            kernel = info.get("layerType", "")
            if kernel in PARTS_OF_NO_KERNEL:
                continue
            by_type[kernel, info.get("runtimePrecision", "")] += 1
            if kernel in FUSED:
                fused[FUSED[kernel]] += 1
            elif is_attention(kernel, info):
                fused["Attention"] += 1
        return Kernels(by_type, fused, openvino_products(executed.compiled, core().read_model(executed.path)))


def _read(path: Path, *, where: str) -> openvino.Model:
    """Raises CheckpointError where the library does not take a graph, as one with blocks of codes that are not even."""
    try:
        return core().read_model(path)
    except RuntimeError as error:
        reason = str(error).replace(str(path), path.name)
        raise CheckpointError(f"{where}: openvino cannot load this graph") from RuntimeError(reason)


def _mark(model: openvino.Model, islands: Iterable[Island]) -> None:
    marked = {op_type for island in islands for op_type in ISLANDS.get(island, ())}
    for node in model.get_ops():
        if node.get_type_name() in marked and not _is_bias(node):
            node.get_rt_info()[PRECISE] = ""


def _is_bias(node: openvino.Node) -> bool:
    """Whether a sum is a product's bias, added for something else than the residual stream and modulation.

    The kernel adds it; the mark would have it give float32, for another kernel to narrow.
    """
    if node.get_type_name() != "Add" or node.input_value(0).get_node().get_type_name() != "MatMul":
        return False
    takers = {port.get_node().get_type_name() for port in node.output(0).get_target_inputs()}
    return len(node.input(1).get_partial_shape()) == 1 and not takers <= {"Add", "Multiply"}
