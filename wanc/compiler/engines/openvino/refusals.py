"""What OpenVINO takes and computes otherwise than ONNX says, without a word: refused by name, before it is compiled.

Each was found by ONNX's own tests of its operators, or by executing graphs of one node beside ONNX Runtime (2026.4).
What can be put right is, in `repairs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.values import attribute, constant, producer, rank
from wanc.compiler.passes.rewrite import OPSET
from wanc.errors import RecipeError

HINT = "engine.kind: onnxruntime runs it"
LENGTHS, PEEPHOLES = 4, 7
"""Which inputs of recurrent operators these are."""
LARGEST = "the largest of nothing but infinities is a finite number"
PAST = 4
"""The input of Attention with the keys of before."""
ATTENTION = frozenset(
    {"is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap", "softmax_precision"}
)
UNSIGNED = (ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64)
NARROW = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)
NOT_ROUND = "8 and 16 bits are not counted round, but stop at their ends"
CODES = (ir.DataType.INT16, ir.DataType.UINT16)
WIDE = (ir.DataType.INT64, ir.DataType.UINT64, ir.DataType.UINT32)
INT32 = np.iinfo(np.int32)
LIMITS = (1, 2)
"""The inputs of Slice that say where it begins and ends."""
STAYING = frozenset({"Cast", "Concat", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""What gives the numbers that it takes."""


class Otherwise(NamedTuple):
    """An operator, when it is one that OpenVINO computes otherwise, and what of it."""

    op_types: tuple[str, ...]
    applies: Callable[[ir.Node], bool]
    what: str
    domains: tuple[str, ...] = ("",)


def check_computed_rightly(model: ir.Model, where: str) -> None:
    """Raises RecipeError where the engine would give other values than the graph says, naming the first such node."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype == ir.DataType.DOUBLE:
            raise _refusal(where, f"{value.name} is float64, and openvino computes it in float32")
    for scope in (model.graph, *model.functions.values()):
        for node in scope.all_nodes():
            for entry in DIFFERENCES:
                if node.domain in entry.domains and node.op_type in entry.op_types and entry.applies(node):
                    raise _refusal(where, f"the {node.op_type} that gives {_given(node)}: {entry.what}")
    for value in _large_constants(model):
        if not _only_limits(value):
            raise _refusal(where, f"{value.name} is beyond 32 bits, to which openvino cuts integers")


def _has(name: str, *usual: Any) -> Callable[[ir.Node], bool]:
    """Whether an attribute is there and none of its usual values."""
    return lambda node: attribute(node, name, usual[0]) not in usual


def _takes(index: int) -> Callable[[ir.Node], bool]:
    """Whether an optional input is there."""
    return lambda node: _input(node, index) is not None


def _touches(dtypes: tuple[ir.DataType, ...]) -> Callable[[ir.Node], bool]:
    """Whether a node takes or gives one of these dtypes."""
    return lambda node: any(value is not None and value.dtype in dtypes for value in (*node.inputs, *node.outputs))


def _looks_at_largest(node: ir.Node) -> bool:
    """Whether a node compares what comes of the largest or smallest of a row, where that may be an infinity."""
    sources = [_without_casts(value) for value in node.inputs]
    return any(producer(source, "ReduceMax", "ReduceMin") and _is_float(source) for source in sources)


def _flattens(node: ir.Node) -> bool:
    """Whether a softmax is one over all axes from its own on, as before opset 13, and there are several."""
    value, graph = node.inputs[0], node.graph
    if value is None or graph is None or graph.opset_imports.get("", OPSET) >= 13:
        return False
    axis, axes = int(attribute(node, "axis", 1)), rank(value)
    return axes is None or axis % axes != axes - 1


def _is_along_another_axis(node: ir.Node) -> bool:
    """Whether a Fourier transform is not known to be one along the axis 1."""
    axes, given = rank(node.inputs[0]), _input(node, 2)
    told = constant(given)
    if given is not None and told is None:
        return True
    newer = node.graph is None or node.graph.opset_imports.get("", OPSET) >= 20
    axis = int(told.item()) if told is not None else int(attribute(node, "axis", -2 if newer else 1))
    return axis != 1 and (axes is None or axis % axes != 1)


def _is_of_infinities(node: ir.Node) -> bool:
    """Whether infinities stand for what is left out, and somebody looks at the result: a softmax only subtracts it."""
    value = _without_casts(node.inputs[0])
    filled = producer(value, "Where")
    constants = [constant(source) for source in filled.inputs[1:]] if filled else []
    subtracted = all(use.op_type == "Sub" and index == 1 for use, index in node.outputs[0].uses())
    is_looked_at = node.outputs[0].is_graph_output() or not subtracted
    return is_looked_at and any(array is not None and np.isinf(array).any() for array in constants if _is_real(array))


def _is_real(array: np.ndarray[Any, Any] | None) -> bool:
    return array is not None and array.dtype.kind == "f"


def _without_casts(value: ir.Value | None) -> ir.Value | None:
    while node := producer(value, "Cast", "CastLike", "Identity", "Unsqueeze", "Squeeze", "Reshape"):
        value = node.inputs[0]
    return value


def _is_float(value: ir.Value | None) -> bool:
    return value is None or value.dtype is None or value.dtype.is_floating_point()


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


def _given(node: ir.Node) -> str:
    return str(next((value.name for value in node.outputs if value.name), node.name))


DIFFERENCES = (
    Otherwise(("Attention",), lambda node: not node.attributes.keys() <= ATTENTION, "a window of keys is left out"),
    Otherwise(
        ("Attention",),
        lambda node: bool(attribute(node, "is_causal", 0)) and _input(node, PAST) is not None,
        "is_causal does not count the keys of the past",
    ),
    Otherwise(
        ("AveragePool",),
        lambda node: bool(attribute(node, "ceil_mode", 0) and attribute(node, "count_include_pad", 0)),
        "with ceil_mode and count_include_pad, the last windows are divided by another number",
    ),
    Otherwise(
        ("BitShift",),
        lambda node: node.inputs[0] is None or node.inputs[0].dtype not in UNSIGNED,
        "numbers with a sign are shifted as if they had none",
    ),
    Otherwise(
        ("BitShift",),
        lambda node: attribute(node, "direction", "") == "LEFT" and _touches(NARROW)(node),
        NOT_ROUND,
    ),
    Otherwise(("DFT",), _has("onesided", 0), "onesided is left out"),
    Otherwise(("DFT",), _is_along_another_axis, "its axis is taken for 1"),
    Otherwise(("Equal", "IsInf"), _looks_at_largest, LARGEST),
    Otherwise(("ReduceMax", "ReduceMin"), _is_of_infinities, LARGEST),
    Otherwise(("GRU", "LSTM", "RNN"), _has("layout", 0), "layout is left out"),
    Otherwise(("GRU", "LSTM", "RNN"), _takes(LENGTHS), "the lengths of its sequences are left out"),
    Otherwise(("LSTM",), _has("input_forget", 0), "input_forget is left out"),
    Otherwise(("LSTM",), _takes(PEEPHOLES), "the peepholes P are left out"),
    Otherwise(("Resize",), _has("antialias", 0), "antialias is left out"),
    Otherwise(("Resize",), _has("exclude_outside", 0), "exclude_outside is left out"),
    Otherwise(
        ("Resize",), _has("keep_aspect_ratio_policy", None, "stretch"), "keep_aspect_ratio_policy is left out"
    ),
    Otherwise(("RoiAlign",), _has("mode", "avg"), "the largest is taken before the weights, not after"),
    Otherwise(("SpaceToDepth",), _has("mode", None, "DCR"), "mode is left out"),
    Otherwise(
        ("QuantizeLinear", "DequantizeLinear"),
        _touches(CODES),
        "its 16-bit codes are not kept in their range",
        ("", "com.microsoft"),
    ),
    Otherwise(("ReduceL1", "ReduceLogSum", "ReduceLogSumExp"), _has("axes", None), "its axes are left out"),
    Otherwise(("LogSoftmax", "Softmax"), _flattens, "its last axes are not taken together, as before opset 13"),
    Otherwise(
        ("Add", "Mul", "Neg", "Sub", "Sum"),
        _touches(NARROW),
        NOT_ROUND,
    ),
)  # fmt: skip


def _large_constants(model: ir.Model) -> Iterator[ir.Value]:
    """Constants that stand in the graph itself and hold a number beyond int32."""
    graphs = (model.graph, *model.graph.subgraphs())
    values = [value for graph in graphs for value in graph.initializers.values()]
    values += [node.outputs[0] for node in model.graph.all_nodes() if node.op_type == "Constant"]
    for value in values:
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None or tensor.dtype not in WIDE or isinstance(tensor, ir.ExternalTensor):
            continue
        numbers = tensor.numpy()
        if numbers.size and (numbers.max() > INT32.max or int(numbers.min()) < INT32.min):
            yield value


def _only_limits(value: ir.Value) -> bool:
    """Whether a number only says where slices begin and end: beyond the last place, every number says the same."""
    if value.is_graph_output():
        return False
    for node, index in value.uses():
        is_limit = node.op_type == "Slice" and index in LIMITS
        stays = node.op_type in STAYING and (index == 0 or node.op_type == "Concat")
        stays &= node.op_type != "Cast" or attribute(node, "to", 0) in WIDE
        if not is_limit and not (stays and _only_limits(node.outputs[0])):
            return False
    return True


def _refusal(where: str, reason: str) -> RecipeError:
    return RecipeError(f"openvino gives other values for {where}: {reason}", hint=HINT, key="engine.kind")
