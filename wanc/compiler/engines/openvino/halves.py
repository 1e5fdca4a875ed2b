"""Lowering to what OpenVINO's CPU plugin has the better kernel for: rotary embedding of halves, not of pairs.

An attention's scores do not change when the entries of each head of queries and keys are put in another order, the same
for both. So the rows of the two projections are sorted once, in the weights: first those of the even entries of each
head, then those of the odd ones. What rotated pairs of neighbours then rotates one half against the other, for which
the plugin needs none of the transposes that it puts around the other form.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.values import READ, attribute, exclusive_producer, producer, rank, size, unread_attribute
from wanc.compiler.passes.rewrite import OPSET, Pass, PassOutcome, Refusal

Array = np.ndarray[Any, Any]

SORTED = ".halves."
"""In the name of a product whose rows are sorted, before the number of heads."""


class Rotated(NamedTuple):
    """A projection, normed and then rotated, and its parameters, whose first axis are the rows: (node, input)."""

    rotation: ir.Node
    norm: ir.Node
    product: ir.Node
    parameters: tuple[tuple[ir.Node, int], ...]
    heads: int


def sort_halves(model: ir.Model) -> PassOutcome:
    """Sort the rows behind every rotation of pairs whose queries and keys both can be."""
    outcome = PassOutcome()
    for node in list(model.graph):
        if (node.domain, node.op_type) != ("", "Attention"):
            continue
        if unread_attribute(node, READ["Attention"]) or len(node.outputs) > 1:
            continue  # it may give the keys
        rotations = [producer(value, "RotaryEmbedding") for value in node.inputs[:2]]
        if not any(attribute(rotation, "interleaved", 0) for rotation in rotations if rotation):
            continue  # nothing is rotated, or halves are already
        found = [entry for value in node.inputs[:2] if (entry := _rotated(value))]
        if len(found) < 2:
            outcome.refusals.append(Refusal(str(node.outputs[0].name), "not Linear, norm and rotation on both sides"))
            continue
        for entry in found:
            _sort(model.graph, entry)
        outcome.fired += 1
    return outcome


def _rotated(value: ir.Value | None) -> Rotated | None:
    rotation = exclusive_producer(value, "RotaryEmbedding")
    norm = exclusive_producer(rotation.inputs[0], "RMSNormalization") if rotation else None
    added = exclusive_producer(norm.inputs[0], "Add") if norm else None
    product = exclusive_producer(added.inputs[0], "MatMul") if added else None
    weight = exclusive_producer(product.inputs[1], "Transpose") if product else None
    if rotation is None or norm is None or added is None or product is None or weight is None:
        return None
    if not attribute(rotation, "interleaved", 0):
        return None
    rows = _weight_rows(weight)
    heads, width = attribute(rotation, "num_heads", 0), size(weight.inputs[0], 0)
    ranks = [rank(norm.inputs[1]), rank(added.inputs[1]), rank(weight.inputs[0])]
    fits = width is not None and heads and width % (2 * heads) == 0 and ranks == [1, 1, 2]
    return Rotated(rotation, norm, product, ((norm, 1), (added, 1), *rows), heads) if fits and rows else None


def _weight_rows(transpose: ir.Node) -> tuple[tuple[ir.Node, int], ...]:
    """Where the rows of a weight stand: in itself, or in its codes and scales."""
    dequantize = exclusive_producer(transpose.inputs[0], "DequantizeLinear")
    if dequantize is None:
        return ((transpose, 0),)
    axis, blocks = attribute(dequantize, "axis", 1), attribute(dequantize, "block_size", 0)
    of_rows = (axis == 0 and not blocks) or (axis == 1 and blocks)
    return ((dequantize, 0), (dequantize, 1)) if of_rows and len(dequantize.inputs) == 2 else ()


def _sort(graph: ir.Graph, entry: Rotated) -> None:
    for node, index in entry.parameters:
        parameter = node.inputs[index]
        assert parameter is not None and parameter.shape is not None
        shape = [int(length) for length in parameter.shape.numpy()]
        pairs = [entry.heads, shape[0] // (2 * entry.heads), 2, *shape[1:]]
        value = parameter
        for op_type, argument in (("Reshape", pairs), ("Transpose", [0, 2, 1, 3][: len(pairs)]), ("Reshape", shape)):
            value = _insert(graph, node, op_type, value, argument)
        value.shape, value.type = parameter.shape, parameter.type
        node.replace_input_with(index, value)
    if entry.product.name:
        entry.product.name = f"{entry.product.name}{SORTED}{entry.heads}"
    entry.rotation.attributes["interleaved"] = ir.AttrInt64("interleaved", 0)


def in_order(outputs: Array, product: str) -> Array:
    """What a product of this name gives, [rows, width], with its columns as they were before they were sorted."""
    _, is_sorted, heads = product.partition(SORTED)
    if not is_sorted:
        return outputs
    return outputs.reshape(len(outputs), int(heads), 2, -1).swapaxes(2, 3).reshape(outputs.shape)


def _insert(graph: ir.Graph, before: ir.Node, op_type: str, value: ir.Value, argument: list[int]) -> ir.Value:
    if op_type == "Transpose":
        node = ir.node("Transpose", [value], {"perm": argument})
    else:
        sizes = ir.node("Constant", [], {"value": ir.tensor(argument)})
        graph.insert_before(before, sizes)
        node = ir.node("Reshape", [value, sizes.outputs[0]])
    graph.insert_before(before, node)
    return node.outputs[0]


HALVES = Pass(
    "halves",
    "rotations of pairs → of halves, with the projections' rows in that order",
    sort_halves,
    opset=OPSET,
)
