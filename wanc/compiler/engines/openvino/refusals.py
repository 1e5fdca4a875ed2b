"""What OpenVINO takes and computes otherwise than ONNX says, without a word: refused by name, before it is compiled.

Each was found by executing graphs of one node beside ONNX Runtime (2026.4), with sizes that may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.values import attribute
from wanc.errors import RecipeError

HINT = "engine.kind: onnxruntime runs it"
RECURRENT = ("RNN", "GRU", "LSTM")
LENGTHS, PEEPHOLES = 4, 7
"""Which inputs of recurrent operators these are."""
ROUNDING = ("QuantizeLinear", "DequantizeLinear")
ARITHMETIC = ("Add", "Sub", "Mul", "Sum", "Neg", "BitShift")
NARROW = (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16)
WIDE = (ir.DataType.INT64, ir.DataType.UINT64, ir.DataType.UINT32)
INT32 = np.iinfo(np.int32)

Rule = Callable[[ir.Node], str | None]


def check_computed_rightly(model: ir.Model, where: str) -> None:
    """Raises RecipeError where the engine would give other values than the graph says, naming the first such node."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype == ir.DataType.DOUBLE:
            raise _refusal(where, f"{value.name} is float64, and openvino computes it in float32")
    for node in model.graph.all_nodes():
        for rule in RULES:
            if reason := rule(node):
                shown = f"{node.op_type} that gives {node.outputs[0].name}"
                raise _refusal(where, f"the {shown}: {reason}")
    for value in _large_constants(model):
        if any(not _is_limit(use.node, use.idx) for use in value.uses()) or value.is_graph_output():
            raise _refusal(where, f"{value.name} is beyond 32 bits, to which openvino cuts integers")


def _lengths(node: ir.Node) -> str | None:
    given = node.op_type in RECURRENT and _input(node, LENGTHS) is not None
    return "openvino ignores the lengths of its sequences" if given else None


def _gates(node: ir.Node) -> str | None:
    if node.op_type != "LSTM":
        return None
    if _input(node, PEEPHOLES) is not None:
        return "openvino ignores its peepholes"
    return "openvino ignores that its input and forget gates are one" if attribute(node, "input_forget", 0) else None


def _rounding(node: ir.Node) -> str | None:
    if node.op_type not in ROUNDING:
        return None
    taken = (*node.outputs, _input(node, 0), _input(node, 2))
    codes = any(value is not None and value.dtype in (ir.DataType.INT16, ir.DataType.UINT16) for value in taken)
    return "openvino does not keep to the range of its 16-bit codes" if codes else None


def _arithmetic(node: ir.Node) -> str | None:
    if node.domain or node.op_type not in ARITHMETIC:
        return None
    narrow = any(value is not None and value.dtype in NARROW for value in (*node.inputs, *node.outputs))
    return "openvino does not count 8 and 16 bits round, but stops at their ends" if narrow else None


RULES: tuple[Rule, ...] = (_lengths, _gates, _rounding, _arithmetic)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


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


def _is_limit(node: ir.Node, index: int) -> bool:
    """Where a Slice begins or ends: beyond the last place, every number says the same."""
    return node.op_type == "Slice" and index in (1, 2)


def _refusal(where: str, reason: str) -> RecipeError:
    return RecipeError(f"openvino gives other values for {where}: {reason}", hint=HINT, key="engine.kind")
