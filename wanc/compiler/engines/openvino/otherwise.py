"""What OpenVINO computes otherwise than ONNX says, without a word: graphs that ask for it are refused, by the node.

Each of these was found by ONNX's own tests of its operators (2026.4). What can be put right is, in `repairs.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import onnx_ir as ir

from wanc.compiler.graphs.values import attribute, producer
from wanc.errors import CheckpointError

HINT = "build with engine.kind: onnxruntime"
UNSIGNED = (ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64)
PEEPHOLES = 7
"""The input of an LSTM that has them."""
ATTENTION = frozenset(
    {"is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap", "softmax_precision"}
)


class Difference(NamedTuple):
    """An operator, when it is one that OpenVINO computes otherwise, and what of it."""

    op_types: tuple[str, ...]
    applies: Callable[[ir.Node], bool]
    what: str


def _has(name: str, *usual: Any) -> Callable[[ir.Node], bool]:
    """Whether an attribute is there and none of its usual values."""
    return lambda node: attribute(node, name, usual[0]) not in usual


def _looks_at_largest(node: ir.Node) -> bool:
    """Whether a node compares what comes of the largest or smallest of a row, where that may be an infinity."""
    sources = [_without_casts(value) for value in node.inputs]
    return any(producer(source, "ReduceMax", "ReduceMin") and _is_float(source) for source in sources)


def _without_casts(value: ir.Value | None) -> ir.Value | None:
    while node := producer(value, "Cast", "CastLike", "Identity", "Unsqueeze", "Squeeze", "Reshape"):
        value = node.inputs[0]
    return value


def _is_float(value: ir.Value | None) -> bool:
    return value is None or value.dtype is None or value.dtype.is_floating_point()


DIFFERENCES = (
    Difference(("Attention",), lambda node: not node.attributes.keys() <= ATTENTION, "a window of keys is left out"),
    Difference(
        ("AveragePool",),
        lambda node: bool(attribute(node, "ceil_mode", 0) and attribute(node, "count_include_pad", 0)),
        "with ceil_mode and count_include_pad, the last windows are divided by another number",
    ),
    Difference(
        ("BitShift",),
        lambda node: node.inputs[0] is None or node.inputs[0].dtype not in UNSIGNED,
        "numbers with a sign are shifted as if they had none",
    ),
    Difference(("DFT",), _has("onesided", 0), "onesided is left out"),
    Difference(("Equal", "IsInf"), _looks_at_largest, "the largest of nothing but infinities is a finite number"),
    Difference(("GRU", "LSTM", "RNN"), _has("layout", 0), "layout is left out"),
    Difference(("LSTM",), _has("input_forget", 0), "input_forget is left out"),
    Difference(
        ("LSTM",),
        lambda node: len(node.inputs) > PEEPHOLES and node.inputs[PEEPHOLES] is not None,
        "the peepholes P are left out",
    ),
    Difference(("Resize",), _has("antialias", 0), "antialias is left out"),
    Difference(("Resize",), _has("exclude_outside", 0), "exclude_outside is left out"),
    Difference(
        ("Resize",), _has("keep_aspect_ratio_policy", None, "stretch"), "keep_aspect_ratio_policy is left out"
    ),
    Difference(("RoiAlign",), _has("mode", "avg"), "the largest is taken before the weights, not after"),
    Difference(("SpaceToDepth",), _has("mode", None, "DCR"), "mode is left out"),
)  # fmt: skip


def check_known(model: ir.Model, *, where: str) -> None:
    """Raises CheckpointError, naming a node, for what OpenVINO would compute otherwise than ONNX says."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype == ir.DataType.DOUBLE:
            raise CheckpointError(f"{where}: {value.name} is float64, and openvino computes in float32", hint=HINT)
    for scope in (model.graph, *model.functions.values()):
        for node in scope.all_nodes():
            for op_types, applies, what in DIFFERENCES:
                if not node.domain and node.op_type in op_types and applies(node):
                    raise CheckpointError(
                        f"{where}: the node {_name(node)} ({node.op_type}) would come out wrong from openvino: {what}",
                        hint=HINT,
                    )


def _name(node: ir.Node) -> str:
    return str(node.name or next(value.name for value in node.outputs if value.name))
