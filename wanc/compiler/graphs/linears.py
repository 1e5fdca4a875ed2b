"""The Linears of a canonical graph: products of an activation and a weight that lies in the checkpoint.

They are what quantisation chooses among. Each is known by the canonical name of its module, `blocks.3.attn1.to_q`; its
weight is [out, in] as stored, and its input is the activation `blocks.3.attn1.to_q.input`.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from wanc.compiler.graphs.values import attribute, producer

SUFFIX = ".weight"


@dataclass(frozen=True)
class Linear:
    """x · W: the node of the product, and the weight, whose results are along axis `output_axis` of what is stored."""

    name: str
    product: ir.Node
    weight: ir.Value
    output_axis: int

    @property
    def input(self) -> ir.Value:
        """The activation, [..., in]."""
        value = self.product.inputs[0]
        assert value is not None
        return value

    @property
    def widths(self) -> tuple[int, int]:
        """Of the result and of the input."""
        assert self.weight.shape is not None
        sizes = self.weight.shape.numpy()
        return sizes[self.output_axis], sizes[1 - self.output_axis]

    @property
    def is_turned(self) -> bool:
        """Whether the product takes its weight the other way round than it is stored."""
        return self.output_axis == 0

    @property
    def flops_per_row(self) -> int:
        """Of one row of the input; a multiplication and an addition are two."""
        out, into = self.widths
        return 2 * out * into


def linears(model: ir.Model) -> list[Linear]:
    """Every Linear of the main graph, in its order. A weight that several products use is a Linear of each."""
    found = (linear_of(node) for node in model.graph)
    return [linear for linear in found if linear is not None]


def linear_of(node: ir.Node) -> Linear | None:
    """The Linear whose product a node is; None for every other node."""
    found = stored_weight(node) if (node.domain, node.op_type) == ("", "MatMul") else None
    if found is None or found[0].shape is None or len(found[0].shape) != 2:
        return None
    weight, axis = found
    return Linear(str(weight.name).removesuffix(SUFFIX), node, weight, axis)


def stored_weight(node: ir.Node) -> tuple[ir.Value, int] | None:
    """The weight that a node multiplies by, which lies in the checkpoint, and the axis of it that is the factor's last.

    None where what it multiplies by is computed.
    """
    value, axis = node.inputs[1], 1
    while (step := producer(value, "Cast", "Transpose")) is not None:
        value = step.inputs[0]
        if step.op_type == "Transpose":
            if list(attribute(step, "perm", (1, 0))) != [1, 0]:
                return None
            axis = 1 - axis
    if value is None or not value.is_initializer() or value.is_graph_input() or value.name is None:
        return None
    return (value, axis) if value.shape is not None else None
