"""Reshapes that only add an axis, beside quantised convolutions: as what they are, so that all other sizes stay known.

While the plugin makes integers of convolutions, it loses the sizes behind a Reshape to a computed shape (2026.4): the
number of channels too, which its kernel of a norm has to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from wanc.compiler.graphs.quantized_linears import has_quantized_convolutions
from wanc.compiler.graphs.values import constant
from wanc.compiler.passes.rewrite import OPSET, Pass, PassOutcome


def unsqueeze(model: ir.Model) -> PassOutcome:
    """Write a Reshape to a computed shape as an Unsqueeze where that is all it does."""
    outcome = PassOutcome()
    if not has_quantized_convolutions(model):
        return outcome
    for node in list(model.graph):
        if (node.domain, node.op_type) != ("", "Reshape") or constant(node.inputs[1]) is not None:
            continue
        axis = _added_axis(*(_sizes(value) for value in (node.inputs[0], node.outputs[0])))
        if axis is not None:
            _write(model.graph, node, axis)
            outcome.fired += 1
    return outcome


def _sizes(value: ir.Value | None) -> list[Any] | None:
    """What is known of them: numbers and names; None where one is not."""
    if value is None or value.shape is None:
        return None
    sizes = [size if isinstance(size, int) else size.value for size in value.shape]
    return None if None in sizes else sizes


def _added_axis(taken: Sequence[Any] | None, given: Sequence[Any] | None) -> int | None:
    if taken is None or given is None or len(given) != len(taken) + 1:
        return None
    axes = (axis for axis, size in enumerate(given) if size == 1)
    return next((axis for axis in axes if [*given[:axis], *given[axis + 1 :]] == [*taken]), None)


def _write(graph: ir.Graph, node: ir.Node, axis: int) -> None:
    axes = ir.node("Constant", [], {"value_ints": [axis]})
    added = ir.node("Unsqueeze", [node.inputs[0], axes.outputs[0]])
    result = node.outputs[0]
    added.outputs[0].shape, added.outputs[0].type = result.shape, result.type
    ir.convenience.replace_nodes_and_values(graph, node, [node], [axes, added], [result], added.outputs)


ADDED_AXES = Pass(
    "added-axes", "reshapes beside int8 convolutions that only add an axis → Unsqueeze", unsqueeze, opset=OPSET
)
