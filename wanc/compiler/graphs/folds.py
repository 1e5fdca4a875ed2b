"""Where an activation's channels can be divided at no cost: in what computes them.

Smoothing divides a Linear's input channel by channel. A norm's scale and shift can be divided instead, and so can the
rows of a Linear; attention passes the channels of its values on, and a product those of either side, as in a gated
feed-forward network. Nothing else is taken: through an activation function a division does not commute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.linears import linear_of
from wanc.compiler.graphs.values import producer, rank, size

SMOOTHING = ".smoothing"
"""What the name of a constant ends with that a value is divided by."""
Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Fold:
    """What is divided, by name: weights along their first axis, and values [channels] that a graph computes."""

    weights: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    def __add__(self, other: Fold) -> Fold:
        return Fold(self.weights + other.weights, self.values + other.values)


def find_fold(activation: ir.Value, channels: int) -> Fold | None:
    """How to divide an activation [..., channels], all of whose users want it divided; None where that is not free."""
    norm = producer(activation, "LayerNormalization", "RMSNormalization")
    if norm is not None:
        found = [_divisible(value, norm, channels) for value in norm.inputs[1:] if value is not None]
        parts = [fold for fold in found if fold is not None]
        return sum(parts, Fold()) if parts and len(parts) == len(found) else None
    attention = producer(activation, "Attention")
    if attention is not None:
        values = attention.inputs[2]
        # Keys or queries that are the values as well decide what is attended to.
        alone = values is not None and attention.inputs.count(values) == 1 and _used_by(values, attention)
        return _rows(values) if alone and size(values, -1) == channels and len(attention.outputs) == 1 else None
    gated = producer(activation, "Mul")
    return _side(gated, channels) if gated is not None else _rows(activation)


def divide(model: ir.Model, divisors: Mapping[str, Array]) -> int:
    """Divide values that a graph computes, by name, in place. Returns how many of them it computes."""
    found = [value for node in model.graph for value in node.outputs if value.name in divisors]
    for value in found:
        _divide(model.graph, value, divisors[str(value.name)].astype(np.float32))
    return len(found)


def _divide(graph: ir.Graph, value: ir.Value, divisor: np.ndarray) -> None:
    """The divided value takes the name, so that other graphs which take it find it."""
    node, name = value.producer(), str(value.name)
    assert node is not None
    constant = ir.Value(
        name=f"{name}{SMOOTHING}",
        shape=ir.Shape(divisor.shape),
        type=ir.TensorType(ir.DataType.FLOAT),
        const_value=ir.tensor(divisor, name=f"{name}{SMOOTHING}"),
    )
    graph.register_initializer(constant)
    value.name = f"{name}.unsmoothed"
    quotient = ir.node("Div", [value, constant])
    result = quotient.outputs[0]
    result.name, result.shape, result.type = name, value.shape, value.type
    users = [(use.node, use.idx) for use in value.uses() if use.node is not quotient]
    for user, index in users:
        user.replace_input_with(index, result)
    graph.outputs[:] = [result if output is value else output for output in graph.outputs]
    graph.insert_after(node, quotient)


def _side(product: ir.Node, channels: int) -> Fold | None:
    """The rows of the Linear that computes one side of a product of as many channels, and nothing else."""
    for value in product.inputs:
        # A square would be divided twice.
        alone = value is not None and product.inputs.count(value) == 1 and _used_by(value, product)
        if alone and size(value, -1) == size(product.outputs[0], -1) == channels and (fold := _rows(value)):
            return fold
    return None


def _rows(value: ir.Value | None) -> Fold | None:
    """The rows of the Linear, and the bias, that compute a value."""
    added = producer(value, "Add")
    if added is not None:
        product, bias = added.inputs
        fold = _product(product, added)
        other = _weight(bias, added)
        alike = rank(bias) == 1 and size(bias, 0) == size(product, -1) is not None
        return fold + Fold((other,)) if fold and other and alike else None
    return _product(value, None)


def _product(value: ir.Value | None, user: ir.Node | None) -> Fold | None:
    node = producer(value, "MatMul")
    linear = linear_of(node) if node is not None else None
    if linear is None or value is None or linear.output_axis != 0 or (user is not None and not _used_by(value, user)):
        return None
    name = _weight(linear.product.inputs[1], linear.product)
    return Fold((name,)) if name else None


def _divisible(value: ir.Value, user: ir.Node, channels: int) -> Fold | None:
    """A norm's scale or shift: a weight, or a vector that is computed for this norm alone."""
    if rank(value) != 1 or size(value, 0) != channels:
        return None
    name = _weight(value, user)
    if name is not None:
        return Fold(weights=(name,))
    return Fold(values=(str(value.name),)) if value.producer() is not None and _used_by(value, user) else None


def _weight(value: ir.Value | None, user: ir.Node) -> str | None:
    """The name of the weight that a value is, behind casts and transposes, if nothing else uses it on the way."""
    while value is not None and _used_by(value, user):
        if value.is_initializer() and not value.is_graph_input():
            return value.name
        node = producer(value, "Cast", "Transpose")
        if node is None:
            return None
        value, user = node.inputs[0], node
    return None


def _used_by(value: ir.Value, user: ir.Node) -> bool:
    return {use.node for use in value.uses()} == {user} and not value.is_graph_output()
