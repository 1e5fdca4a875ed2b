"""Lowering of constants of one element that have more axes than what they are computed with, for both engines.

They give their axes to the result. Where an engine's optimiser sees a norm or a GELU it takes such a constant for a
scalar, and the axes are gone. So the constant becomes a scalar here, and the axes are added behind it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.values import constant, rank
from wanc.compiler.passes.rewrite import Pass, PassOutcome

ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow")
AXES_AS_INPUT = 13  # the opset from which Unsqueeze takes them so


def add_axes_behind(model: ir.Model) -> PassOutcome:
    """Take the axes of such constants behind the operators that they are given to."""
    outcome = PassOutcome()
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            if not node.domain and node.op_type in ARITHMETIC:
                outcome.fired += sum(_take_behind(graph, node, index) for index in (0, 1) if node.graph is graph)
    return outcome


def _take_behind(graph: ir.Graph, node: ir.Node, index: int) -> bool:
    array, other = constant(node.inputs[index]), rank(node.inputs[1 - index])
    if array is None or array.size != 1 or other is None or array.ndim <= other:
        return False
    number = ir.node("Constant", [], {"value": ir.tensor(array.reshape(()))})
    axes = ir.node("Constant", [], {"value": ir.tensor(np.arange(array.ndim - other))})
    inputs = list(node.inputs)
    inputs[index] = number.outputs[0]
    inner = ir.node(node.op_type, inputs, name=node.name)
    last = ir.node("Unsqueeze", [inner.outputs[0], axes.outputs[0]])
    (result,), (widened,) = node.outputs, last.outputs
    widened.shape, widened.type = result.shape, result.type
    made = [number, axes, inner, last]
    ir.convenience.replace_nodes_and_values(graph, node, [node], made, [result], [widened])
    return True


RANKS = Pass(
    "ranks",
    "constants of one element with more axes than what they are computed with → scalars, and the axes behind",
    add_axes_behind,
    opset=AXES_AS_INPUT,
)
