"""A graph in 16 bits as this machine executes it: each operation in float32, and what it gives rounded.

So do GPUs: their products add up in float32. onnxruntime has no kernels for such numbers on CPUs, but for casts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

FLOAT = ir.DataType.FLOAT
HALVES = (ir.DataType.BFLOAT16, ir.DataType.FLOAT16)


def widen(model: ir.Model) -> None:
    """Make every operation on 16 bits one on float32, in place. What a graph takes and gives stays as it is."""
    graph = model.graph
    outputs = {value for value in graph.outputs if value.dtype in HALVES}
    for value in [*graph.inputs, *graph.initializers.values()]:
        if value.dtype in HALVES:
            uses, cast = list(value.uses()), _cast(value, FLOAT)
            _use(uses, cast)
            _insert_first(graph, cast)
    for node in list(graph):
        for value in node.outputs:
            if value.dtype in HALVES and value not in outputs:
                _round(graph, node, value)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Have a node give float32, and round it for all who use it; a Cast rounds by itself."""
    dtype, uses = value.dtype, list(value.uses())
    assert dtype is not None
    if node.op_type == "Cast":
        wide = _cast(value, FLOAT)
        graph.insert_after(node, wide)
    else:
        value.type = ir.TensorType(FLOAT)
        narrow = _cast(value, dtype)
        wide = _cast(narrow.outputs[0], FLOAT)
        graph.insert_after(node, [narrow, wide])
    _use(uses, wide)


def _cast(value: ir.Value, dtype: ir.DataType) -> ir.Node:
    node = ir.node("Cast", [value], {"to": dtype})
    node.outputs[0].shape, node.outputs[0].type = value.shape, ir.TensorType(dtype)
    return node


def _use(uses: Sequence[Any], cast: ir.Node) -> None:
    for use in uses:
        use.node.replace_input_with(use.idx, cast.outputs[0])


def _insert_first(graph: ir.Graph, node: ir.Node) -> None:
    first = next(iter(graph), None)
    if first is None:
        graph.append(node)
    else:
        graph.insert_before(first, node)
