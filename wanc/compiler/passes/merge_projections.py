"""Projections of one input that meet in one attention: q, k and v in one product, or k and v of a cross-attention.

The weights are put together by a Concat of what lies in the checkpoint; the bytes move when an engine writes its own
weights. The merged tensor is called after its parts: `to_q`, `to_k` and `to_v` make `to_qkv`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import takewhile
from typing import NamedTuple

import onnx_ir as ir

from wanc.compiler.graphs.values import attribute, producer, rank, size
from wanc.compiler.passes.rewrite import OPSET, Pass, PassOutcome, Refusal

# What may stand between a projection and the attention that it feeds.
BETWEEN = ("RMSNormalization", "RotaryEmbedding", "Reshape", "Transpose", "LayerNormalization")


class Projection(NamedTuple):
    """x · weight (+ bias): the node of the product, that of the bias, and the widths of the result."""

    product: ir.Node
    added: ir.Node | None
    width: int

    @property
    def result(self) -> ir.Value:
        return (self.added or self.product).outputs[0]

    @property
    def weight(self) -> ir.Value:
        weight = self.product.inputs[1]
        assert weight is not None
        return weight

    @property
    def bias(self) -> ir.Value | None:
        return self.added.inputs[1] if self.added else None


def merge(model: ir.Model) -> PassOutcome:
    """Merge the projections of every Attention of the main graph."""
    outcome = PassOutcome()
    for node in list(model.graph):
        if (node.domain, node.op_type) != ("", "Attention"):
            continue
        by_input: dict[ir.Value, list[Projection]] = defaultdict(list)
        for value in node.inputs[:3]:
            projection = _projection(value)
            if isinstance(projection, str):
                outcome.refusals.append(Refusal(str(node.outputs[0].name), projection))
            elif projection.product not in [seen.product for seen in by_input[_input(projection)]]:
                by_input[_input(projection)].append(projection)
        for projections in by_input.values():
            if len(projections) < 2:
                continue
            if len({projection.bias is None for projection in projections}) > 1:
                outcome.refusals.append(Refusal(str(node.outputs[0].name), "only some of the projections have a bias"))
                continue
            _merge(model.graph, projections)
            outcome.fired += 1
    return outcome


def _input(projection: Projection) -> ir.Value:
    value = projection.product.inputs[0]
    assert value is not None
    return value


def _projection(value: ir.Value | None) -> Projection | str:
    """The Linear that an attention's input comes from, or why there is none that could be merged."""
    while (node := producer(value, *BETWEEN)) is not None:
        value = node.inputs[0]
    added = producer(value, "Add")
    product = producer(added.inputs[0] if added else value, "MatMul")
    if product is None or any(input is None for input in product.inputs):
        return "an input does not come from a Linear"
    weight = product.inputs[1]
    width = size(weight, 1)
    if rank(weight) != 2 or width is None or not _is_weight(weight):
        return "the weight is not a matrix of the checkpoint"
    if added is not None and (rank(added.inputs[1]) != 1 or not _is_weight(added.inputs[1])):
        return "what is added is not a bias of the checkpoint"
    if len(product.outputs[0].uses()) > 1 and added is not None:
        return "the product is used without its bias as well"
    return Projection(product, added, width)


def _is_weight(value: ir.Value | None) -> bool:
    while (node := producer(value, "Cast", "Transpose")) is not None:
        value = node.inputs[0]
    return value is not None and value.is_initializer() and not value.is_graph_input()


def _merge(graph: ir.Graph, projections: list[Projection]) -> None:
    first = projections[0].product
    nodes: list[ir.Node] = []

    def add(op_type: str, inputs: list[ir.Value | None], outputs: int = 1, **attributes: object) -> list[ir.Value]:
        node = ir.node(op_type, inputs, attributes, num_outputs=outputs)  # pyright: ignore
        nodes.append(node)
        return list(node.outputs)

    transposes = [producer(projection.weight, "Transpose") for projection in projections]
    stored = [node.inputs[0] for node in transposes if node and list(attribute(node, "perm", (1, 0))) == [1, 0]]
    if len(stored) == len(projections):
        (joined,) = add("Concat", list(stored), axis=0)
        joined.name = _free_name(graph, stored)
        (weight,) = add("Transpose", [joined], perm=[1, 0])
    else:
        (weight,) = add("Concat", [projection.weight for projection in projections], axis=1)
        weight.name = _free_name(graph, [projection.weight for projection in projections])
    (result,) = add("MatMul", [first.inputs[0], weight])
    if projections[0].bias is not None:
        (bias,) = add("Concat", [projection.bias for projection in projections], axis=0)
        bias.name = _free_name(graph, [projection.bias for projection in projections])
        (result,) = add("Add", [result, bias])
    widths = ir.node("Constant", [], {"value": ir.tensor([projection.width for projection in projections])})
    nodes.append(widths)
    parts = add("Split", [result, widths.outputs[0]], len(projections), axis=-1)
    graph.insert_before(_earliest(graph, projections), nodes)
    for projection, part in zip(projections, parts, strict=True):
        part.shape, part.type = projection.result.shape, projection.result.type
        projection.result.replace_all_uses_with(part, replace_graph_outputs=True)
        # A result of the graph keeps its name.
        part.name, projection.result.name = projection.result.name, None
    graph.sort()


def _earliest(graph: ir.Graph, projections: list[Projection]) -> ir.Node:
    products = {projection.product for projection in projections}
    return next(node for node in graph if node in products)


def _free_name(graph: ir.Graph, parts: Iterable[ir.Value | None]) -> str:
    name = merged_name([_stored_name(value) for value in parts])
    taken = ir.convenience.create_value_mapping(graph)
    return next(
        free for free in (name, *(f"{name}.{number}" for number in range(2, len(taken) + 3))) if free not in taken
    )


def _stored_name(value: ir.Value | None) -> str:
    while (node := producer(value, "Cast", "Transpose")) is not None:
        value = node.inputs[0]
    return str(value.name) if value is not None else ""


def merged_name(parts: list[str]) -> str:
    """`a.to_q.weight`, `a.to_k.weight` and `a.to_v.weight` → `a.to_qkv.weight`."""
    prefix = _common_start(parts)
    suffix = _common_start([part[len(prefix) :][::-1] for part in parts])[::-1]
    middles = [part[len(prefix) : len(part) - len(suffix)] for part in parts]
    return f"{prefix}{''.join(middles)}{suffix}"


def _common_start(texts: list[str]) -> str:
    """The characters that all texts begin with."""
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False))
    return "".join(column[0] for column in alike)


PASS = Pass(
    "merge-projections",
    "q, k and v of an attention in one product, k and v of a cross-attention in another",
    merge,
    after=("attention-heads", "linear", "modulate"),
    by_default=False,
    opset=OPSET,
)
