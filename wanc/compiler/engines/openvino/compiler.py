"""The `openvino` engine on CPUs: an IR per graph, in float32, or with its products in bfloat16.

In bfloat16 everything but products, softmax and the reshapes between them is an island: it stays in float32, because
nine tenths of what bfloat16 costs in accuracy come from the residual stream and the modulation. So do whole graphs that
take little of the time and whose errors show: the timestep's, and the decoder of the VAE. The mark that keeps an
operation in float32 is OpenVINO's own, the one behind `disable_fp16_compression`; it is honoured only in a model that
was read from a file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import onnx_ir as ir
import openvino
from openvino import opset14
from openvino.op import Constant

from wanc.compiler.engines.compiler import Prober
from wanc.compiler.engines.kernels import GIVES, HALVES, Kernels
from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.engines.openvino.fused import has_kernel
from wanc.compiler.engines.openvino.kept import kept_bytes
from wanc.compiler.engines.openvino.passes import PASSES
from wanc.compiler.engines.openvino.positions import deciding, join_constants
from wanc.compiler.engines.openvino.probe import OpenVinoProber
from wanc.compiler.engines.openvino.refusals import check_computed_rightly
from wanc.compiler.engines.openvino.repairs import repair
from wanc.compiler.engines.openvino.sizes import first_shapes, most_shapes
from wanc.compiler.engines.products import is_attention, openvino_products
from wanc.compiler.engines.whole_islands import is_whole_island
from wanc.compiler.passes.rewrite import Pass
from wanc.compiler.program.graph_file import load
from wanc.errors import EXIT_REFUSED, CheckpointError, UserError
from wanc.runtime.backends.base import Backend
from wanc.runtime.backends.openvino import FIRST, PRECISION, OpenVino, core
from wanc.runtime.engine_file import EngineMemory
from wanc.words import Island

PRECISE = "precise_0"
MOST = ["wanc", "most"]
"""Where a model says of which sizes its inputs are in the largest request: {name: sizes}, as JSON."""
ISLANDS: Mapping[Island, tuple[str, ...]] = {
    "residual": ("Add", "Subtract"),
    "modulation": ("Multiply", "Divide"),
    "norm": ("MVN", "RMS", "Power", "ReduceMean", "ReduceSum", "Sqrt", "ReduceL2"),
    "rope": ("RoPE", "Sin", "Cos"),
}
"""The operations, by OpenVINO's names, of each kind of island."""
FUSED = {"ScaledDotProductAttention": "Attention", "RMS": "RMSNormalization", "RoPE": "RotaryEmbedding"}
OPERATION = 48 * 2**10
"""Bytes that an open file takes beside its weights for each operation: generated code, and what it was made of."""
PARTS_OF_NO_KERNEL = ("Input", "Output", "Constant", "Const", "Parameter", "Result")


@dataclass(frozen=True)
class OpenVinoCompiler:
    """Build-time side of the engine."""

    engine: ClassVar[str] = "openvino"
    built: ClassVar[str | None] = None
    turns_weights: ClassVar[bool] = False
    has_collectives: ClassVar[bool] = False
    passes: ClassVar[tuple[Pass, ...]] = PASSES

    compute: str
    islands: tuple[Island, ...]

    def lowering(self, component: str, graph: str) -> tuple[Pass, ...]:
        del component, graph
        return self.passes

    def compile(
        self, component: str, graphs: Mapping[str, LoweredGraph], weights: frozenset[Path]
    ) -> Mapping[str, Path]:
        """An IR for each graph, with its weights beside it: what they were read from goes.

        Raises RecipeError where the library would take a graph and compute something else, CheckpointError where it
        does not take it.
        """
        made: dict[str, Path] = {}
        for graph, lowered in graphs.items():
            path, where = lowered.path, f"{component}/{graph}"
            canonical = load(path)
            check_computed_rightly(canonical, where)
            model = _read(path, where=where)
            _keep_inputs(model, canonical)
            _name(model, canonical)
            repair(model)
            if self.compute == "bf16" and not is_whole_island(component, graph, self.islands):
                model.set_rt_info("bf16", PRECISION)
                join_constants(model)
                _mark(model, self.islands)
            if shapes := first_shapes(canonical, lowered):
                model.set_rt_info(json.dumps(shapes), FIRST)
            if shapes := most_shapes(canonical, lowered):
                model.set_rt_info(json.dumps(shapes), MOST)
            made[graph] = path.with_suffix(".xml")
            openvino.save_model(model, made[graph], compress_to_fp16=False)
            del model  # it maps the weights that go now
            path.unlink()
        for path in weights:
            path.unlink()
        return made

    def execute(self, path: Path) -> Backend | None:
        return OpenVino(path, threads=1)

    def memory(self, path: Path) -> EngineMemory | None:
        """Weights as they are packed at the first execution; until then their file's pages are there as well.

        Of a file that is not executed when it is opened they stay. What the largest request leaves is there as well.
        """
        model = core().read_model(path)
        in_halves = model.has_rt_info(PRECISION) and str(model.get_rt_info(PRECISION).astype(str)) == "bf16"
        nodes = model.get_ops()
        held = sum(_held_bytes(node, in_halves=in_halves) for node in nodes if _is_weight(node))
        most = json.loads(str(model.get_rt_info(MOST).astype(str))) if model.has_rt_info(MOST) else None
        kept = kept_bytes(model, most, 2 if in_halves else 4) if most else 0
        opened = OPERATION * len(nodes) + held + kept
        opening = opened + path.with_suffix(".bin").stat().st_size
        return EngineMemory(opened if model.has_rt_info(FIRST) else opening, opening)

    def has_kernel(self, node: ir.Node, opset: int) -> bool:
        del opset
        return has_kernel(node)

    def prober(self, path: Path) -> Prober | None:
        return OpenVinoProber(path)

    def report(self, path: Path, executed: Backend | None) -> Kernels:
        """From the graph that the CPU plugin executes.

        Raises UserError where products were to be in bfloat16 and none is: the processor has no instructions for it.
        """
        by_type: Counter[tuple[str, str]] = Counter()
        fused: Counter[str] = Counter()
        opened = cast(OpenVino, executed)
        for node in opened.compiled.get_runtime_model().get_ordered_ops():
            info = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
            kernel = info.get("layerType", "")
            if kernel in PARTS_OF_NO_KERNEL:
                continue
            by_type[kernel, _types(node, kernel, info.get("runtimePrecision", ""))] += 1
            if kernel in FUSED:
                fused[FUSED[kernel]] += 1
            elif is_attention(kernel, info):
                fused["Attention"] += 1
        model = core().read_model(path)
        products = openvino_products(opened.compiled, model)
        floats = products.total - products.integer_linear - products.coded_linear
        if floats and model.has_rt_info(PRECISION) and not any(precision == "bf16" for _, precision in by_type):
            raise UserError(
                "the recipe asks for bf16, and OpenVINO computes in float32 on this machine",
                hint="build where the processor has AVX512_BF16 or AMX_BF16, or set precision.compute to fp32",
                exit_code=EXIT_REFUSED,
            )
        return Kernels(by_type, fused, products)


def _types(node: openvino.Node, kernel: str, precision: str) -> str:
    """In what a kernel computes. A product of codes does not tell that what it gives is rounded to 16 bits."""
    given = node.output(0).get_element_type().get_type_name() if kernel == "FullyConnected" else precision
    return f"{precision}{GIVES}{given}" if given in HALVES and precision not in HALVES else precision


def _read(path: Path, *, where: str) -> openvino.Model:
    """Raises CheckpointError where the library does not take a graph, as one with blocks of codes that are not even."""
    try:
        return core().read_model(path)
    except RuntimeError as error:
        reason = str(error).replace(str(path), path.name)
        raise CheckpointError(f"{where}: openvino cannot load this graph") from RuntimeError(reason)


def _keep_inputs(model: openvino.Model, canonical: ir.Model) -> None:
    """Inputs that nothing depends on are inputs all the same: the library's reader drops some of them."""
    known = {entry.get_friendly_name(): entry for entry in model.get_parameters()}
    for value in canonical.graph.inputs:
        if value.name not in known:
            assert value.dtype is not None and value.shape is not None
            sizes = [size if isinstance(size, int) else -1 for size in value.shape]
            entry = opset14.parameter(sizes, np.dtype(value.dtype.numpy()), str(value.name))
            known[str(value.name)] = entry
            model.add_parameters([entry])
    # What is known by its number has to come in the order of the graph.
    for value in canonical.graph.inputs:
        entry = known[str(value.name)]
        model.remove_parameter(entry)
        model.add_parameters([entry])


def _name(model: openvino.Model, canonical: ir.Model) -> None:
    """Call inputs and outputs as the graph does, and no other: a tensor that has several names is known by any."""
    for ports, values in ((model.inputs, canonical.graph.inputs), (model.outputs, canonical.graph.outputs)):
        for port, value in zip(ports, values, strict=True):
            port.get_tensor().set_names({str(value.name)})


def _mark(model: openvino.Model, islands: Iterable[Island]) -> None:
    marked = {op_type for island in islands for op_type in ISLANDS.get(island, ())}
    for node in model.get_ops():
        if node.get_type_name() in marked and not _is_bias(node):
            node.get_rt_info()[PRECISE] = ""
    for node in deciding(model):
        node.get_rt_info()[PRECISE] = ""


def _is_weight(node: openvino.Node) -> bool:
    return node.get_type_name() == "Constant"


def _held_bytes(node: openvino.Node, *, in_halves: bool) -> int:
    """Of a constant: factors of products are packed in bfloat16 where these are computed in that.

    A factor [in, out] takes as much in float32, turned round beside that (2026.4): from graphs that have it so.
    """
    size = cast("Constant", node).get_byte_size()
    is_turned = in_halves and node.get_element_type() == openvino.Type.f32 and _takers(node) == {"Transpose"}
    transposes = (port.get_node() for port in node.output(0).get_target_inputs()) if is_turned else ()
    return size // 2 if is_turned and all(_takers(each) == {"MatMul"} for each in transposes) else size


def _takers(node: openvino.Node) -> set[str]:
    return {port.get_node().get_type_name() for port in node.output(0).get_target_inputs()}


def _is_bias(node: openvino.Node) -> bool:
    """Whether a sum is a product's bias, added for something else than the residual stream and modulation.

    The kernel adds it; the mark would have it give float32, for another kernel to narrow.
    """
    if node.get_type_name() != "Add" or node.input_value(0).get_node().get_type_name() != "MatMul":
        return False
    return len(node.input(1).get_partial_shape()) == 1 and not _takers(node) <= {"Add", "Multiply"}
