"""From a fused graph's pieces to a survey: which kernels an engine makes of them, and what these read and write.

Products are kernels. What stands between two products is one kernel as well, as engines fuse it; where that has
nothing but one product's result to work on, and no norm, it is computed before that result is written at all. A
value is in memory if one kernel gives it and another takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import onnx_ir as ir

from wanc.compiler.graphs.convolutions import convolution_of
from wanc.compiler.graphs.linears import linear_of
from wanc.compiler.graphs.pieces import constants
from wanc.compiler.graphs.values import attribute
from wanc.compiler.planner.costs import Kind
from wanc.compiler.planner.survey import Role, SurveyedGraph, SurveyedKernel, SurveyedValue
from wanc.models.graph import Input
from wanc.runtime.dimensions import Dimension

NORMS = ("RMSNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization")
FUSED_ATTENTION = "Attention"


class Product(NamedTuple):
    """What a node multiplies: `flops` times the product of `scale`, with a weight of so many elements, or none."""

    kind: Kind
    flops: int
    scale: tuple[Dimension, ...]
    weight: ir.Value | None
    linear: str | None


@dataclass
class _KernelNodes:
    """Nodes that are one kernel."""

    depth: int
    product: Product | None
    nodes: list[ir.Node] = field(default_factory=list[ir.Node])

    def takes(self) -> list[ir.Value]:
        """What it reads of what others give, each once."""
        inside = {value for node in self.nodes for value in node.outputs}
        read = dict.fromkeys(value for node in self.nodes for value in node.inputs if value is not None)
        return [value for value in read if value not in inside and _is_activation(value)]


def observe(model: ir.Model, inputs: Mapping[str, Input], *, keeps_residual: bool) -> SurveyedGraph:
    """One piece of a fused graph. `inputs` declare what enters it, as far as it is an input of the graph.

    `keeps_residual` says whether what goes from one kernel between products to another stays in fp32. Raises
    ValueError for a size that is no sum of products of names and numbers.
    """
    known = constants(model.graph)
    nodes = [node for node in model.graph if node not in known and any(map(_is_activation, node.outputs))]
    groups = _epilogues(_groups(nodes))
    made = {value: group for group in groups for node in group.nodes for value in node.outputs}
    read: dict[ir.Value, list[_KernelNodes]] = {}
    for group in groups:
        for value in group.takes():
            read.setdefault(value, []).append(group)
    outputs = [value for value in model.graph.outputs if _is_activation(value)]
    written = [value for value in made if value in read or value in outputs]
    entering = [value for value in model.graph.inputs if value in read]
    number = {value: index for index, value in enumerate([*entering, *written])}
    values = [
        SurveyedValue(_shape(value), keeps_residual and _between_products(value, made, read), _role(value, inputs))
        for value in number
    ]
    owned = {group.product.weight for group in groups if group.product and group.product.weight is not None}
    states = {f"next_{name.removeprefix('cache_')}" for name, entry in inputs.items() if entry.binding == "chunk"}
    return SurveyedGraph(
        tuple(values),
        tuple(_kernel(group, number) for group in groups),
        sum(_count(value) for value in model.graph.initializers.values() if value not in owned),
        tuple(number[value] for value in outputs if value.name not in states),
        tuple(number[value] for value in outputs if value.name in states),
    )


def _groups(nodes: Sequence[ir.Node]) -> list[_KernelNodes]:
    """Products by themselves, and all that stands behind as many products on every way, in the order of execution."""
    depth: dict[ir.Value, int] = {}
    between: dict[int, _KernelNodes] = {}
    groups: list[_KernelNodes] = []
    for node in nodes:
        before = max((depth.get(value, 0) for value in node.inputs if value is not None), default=0)
        product = product_of(node)
        if product is not None:
            before += 1
            groups.append(_KernelNodes(before, product, [node]))
        else:
            if before not in between:
                between[before] = _KernelNodes(before, None)
                groups.append(between[before])
            between[before].nodes.append(node)
        depth.update(dict.fromkeys(node.outputs, before))
    return sorted(groups, key=lambda group: (group.depth, group.product is None))


def _epilogues(groups: list[_KernelNodes]) -> list[_KernelNodes]:
    """Hand to each product what is computed on its result alone, as bias and activation."""
    products = {value: group for group in groups if group.product for node in group.nodes for value in node.outputs}
    for group in groups:
        if group.product is not None:
            continue
        for nodes in _connected(group.nodes):
            part = _KernelNodes(group.depth, None, nodes)
            takes = [value for value in part.takes() if _symbolic(value)]
            giver = products.get(takes[0]) if len(takes) == 1 else None
            if giver is not None and not any(node.op_type in NORMS for node in nodes):
                giver.nodes += nodes
                group.nodes = [node for node in group.nodes if node not in nodes]
    return [group for group in groups if group.nodes]


def _connected(nodes: Iterable[ir.Node]) -> list[list[ir.Node]]:
    """Nodes that hand values to each other, together; in their order."""
    found: list[list[ir.Node]] = []
    of: dict[ir.Value, list[ir.Node]] = {}
    for node in nodes:
        touching = list({id(of[value]): of[value] for value in node.inputs if value in of}.values())
        merged = [other for group in touching for other in group]
        found = [group for group in found if not any(group is other for other in touching)]
        merged.append(node)
        found.append(merged)
        of.update((value, merged) for other in merged for value in other.outputs)
    return found


def product_of(node: ir.Node) -> Product | None:
    """What a node multiplies; None where it is no product."""
    if node.domain or node.op_type not in ("MatMul", "Attention", "Conv"):
        return None
    left, right = node.inputs[0], node.inputs[1]
    assert left is not None and right is not None
    result = _shape(node.outputs[0])
    if node.op_type == "Attention":
        values = node.inputs[2]
        assert values is not None
        # Scores of every query with every key, and as much again for what is made of the values.
        columns = _sum(_shape(left)[-1], _shape(values)[-1])
        return Product("attention", 2, (*_shape(left)[:-1], _shape(right)[-2], columns), None, None)
    if node.op_type == "Conv":
        filters = _shape(right)
        each = 2 * _whole(filters[1:])
        convolution = convolution_of(node)
        return Product("convolution", each, result, _parameter(right), convolution and convolution.name)
    linear = linear_of(node)
    if linear is None:
        return Product("attention", 2, (*result, _shape(left)[-1]), None, None)
    return Product("linear", 2, (*result, _shape(left)[-1]), linear.weight, linear.name)


def _sum(one: Dimension, other: Dimension) -> int:
    """The columns of queries and of values together; as many of each head where heads are an axis."""
    if not (isinstance(one, int) and isinstance(other, int)):
        raise ValueError(f"attention over {one} and {other} columns")
    return one + other


def _kernel(group: _KernelNodes, number: Mapping[ir.Value, int]) -> SurveyedKernel:
    takes = tuple(number[value] for value in group.takes())
    gives = tuple(number[value] for node in group.nodes for value in node.outputs if value in number)
    normed = (node.inputs[0] for node in group.nodes if node.op_type in NORMS)
    copies = tuple(source for value in normed if (source := _source(value, number)) is not None)
    product = group.product
    if product is None:
        return SurveyedKernel("other", takes, gives, copies=copies)
    weight = 0 if product.weight is None else _count(product.weight)
    return SurveyedKernel(product.kind, takes, gives, product.flops, product.scale, weight, product.linear, copies)


def _source(value: ir.Value | None, number: Mapping[ir.Value, int]) -> int | None:
    """What a norm's input was made of, element by element, that is in memory."""
    while value is not None:
        if value in number:
            return number[value]
        giver = value.producer()
        value = giver.inputs[0] if giver else None
    return None


def _between_products(
    value: ir.Value, made: Mapping[ir.Value, _KernelNodes], read: Mapping[ir.Value, list[_KernelNodes]]
) -> bool:
    """Whether no product has given a value or takes it: what goes round the products is the residual stream."""
    sides = [*([made[value]] if value in made else []), *read.get(value, [])]
    return _symbolic(value) and all(group.product is None for group in sides)


def _role(value: ir.Value, inputs: Mapping[str, Input]) -> Role | None:
    if not value.is_graph_input():
        return None
    entry = inputs.get(str(value.name))
    if entry is None or entry.binding == "step":
        return "hidden"
    if entry.binding == "chunk":
        return "state" if entry.name.startswith("cache_") else "past" if entry.per == "branch" else "request"
    return "kept" if entry.per == "branch" else "request"


def _is_activation(value: ir.Value) -> bool:
    """Whether a value holds what is computed: not a weight, a constant, or the sizes of something."""
    if value.is_initializer() or value.dtype is None or value.shape is None:
        return False
    giver = value.producer()
    is_view_of_weight = giver is not None and all(
        entry is None or entry.is_initializer() or not _is_activation(entry) for entry in giver.inputs
    )
    return value.dtype.is_floating_point() and not (giver is not None and is_view_of_weight and bool(giver.inputs))


def _symbolic(value: ir.Value) -> bool:
    """Whether there is more of it in a larger video."""
    return any(not isinstance(size, int) for size in value.shape or ())


def _shape(value: ir.Value) -> tuple[Dimension, ...]:
    assert value.shape is not None, f"{value.name} has no shape"
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    for size in shape:
        factors = (factor.strip() for term in str(size).split("+") for factor in term.split("*"))
        if not all(factor.isidentifier() or factor.isdigit() for factor in factors):
            raise ValueError(f"{value.name} has the size {size}, which is no sum of products")
    return shape


def _parameter(value: ir.Value) -> ir.Value | None:
    """The weight that a value is, or is a view of."""
    while not value.is_initializer():
        giver = value.producer()
        if giver is None or giver.op_type not in ("Cast", "Transpose", "Reshape") or giver.inputs[0] is None:
            return None
        value = giver.inputs[0]
    return value


def _count(value: ir.Value) -> int:
    return _whole(_shape(value))


def _whole(shape: Iterable[Dimension]) -> int:
    product = 1
    for size in shape:
        if not isinstance(size, int):
            raise ValueError(f"a weight has the size {size}")
        product *= size
    return product


def heads_of(model: ir.Model) -> int | None:
    """The heads of a graph's self-attentions, if all have as many."""
    found = {attribute(node, "q_num_heads", 0) for node in model.graph if node.op_type == FUSED_ATTENTION}
    return found.pop() or None if len(found) == 1 else None
