"""Cutting a graph into pieces: whatever decides which nodes belong together, the cut itself is made here.

Four policies decide: by the time at which inputs are known (`hoist`), by bytes of weights (`by_bytes`), by blocks
(`by_blocks`), and by what ranks exchange (`by_exchanges`). Pieces are executed in their order; what one gives and a
later one takes keeps its name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx_ir as ir

ROUNDING = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
"""What is never parted from the product that it rounds for: engines make one kernel of both."""


@dataclass(frozen=True)
class Piece:
    """A part of a graph: its inputs are those of the whole or outputs of earlier pieces, by the same names."""

    model: ir.Model

    @property
    def inputs(self) -> list[str]:
        return [str(value.name) for value in self.model.graph.inputs]

    @property
    def outputs(self) -> list[str]:
        return [str(value.name) for value in self.model.graph.outputs]


def cut(model: ir.Model, groups: Sequence[Collection[ir.Node]]) -> list[Piece]:
    """One piece for each group of nodes, in their order: no group takes what a later one gives.

    A node of no group (see `copied`) is part of every piece that uses it. Of a single group the model is the piece.
    """
    if len(groups) == 1:
        return [Piece(model)]
    owner = {node: index for index, nodes in enumerate(groups) for node in nodes}
    reach = reaching(owner.keys())
    known = [*model.graph.inputs, *(value for node in owner for value in node.outputs)]
    order = {value: position for position, value in enumerate(known)}
    taken = [sorted(_taken(nodes, index, owner, reach), key=order.__getitem__) for index, nodes in enumerate(groups)]
    needed = {value for values in taken for value in values}
    pieces: list[Piece] = []
    for index, nodes in enumerate(groups):
        given = [value for node in nodes for value in node.outputs if value in needed and not value.is_graph_output()]
        # What nobody owns, such as a constant that the graph gives, the last piece gives.
        last = len(groups) - 1
        given += [value for value in model.graph.outputs if _owner(value, owner, last) == index]
        pieces.append(_piece(model, taken[index], given))
    return pieces


def constants(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that depend on no input: constants, and views of weights."""
    found: set[ir.Node] = set()
    for node in graph:
        if all(
            value is None or value.is_initializer() or (not value.is_graph_input() and value.producer() in found)
            for value in node.inputs
        ) and not _captured(node):
            found.add(node)
    return found


def copied(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that every piece has for itself: constants, views of weights, and what rounds for products."""
    return constants(graph) | {node for node in graph if not node.domain and node.op_type in ROUNDING}


Reach = Callable[[ir.Node], tuple[list[ir.Value], list[ir.Value]]]


def reaching(owned: Collection[ir.Node]) -> Reach:
    """For every owned node what it takes, directly or through nodes that are not owned: computed values, and weights.

    Computed values are inputs of the graph or given by owned nodes.
    """

    @cache
    def reach(node: ir.Node) -> tuple[list[ir.Value], list[ir.Value]]:
        values: dict[ir.Value, None] = {}
        weights: dict[ir.Value, None] = {}
        waiting = [*node.inputs, *_captured(node)]
        while waiting:
            value = waiting.pop()
            if value is None:
                continue
            giver = value.producer()
            if giver is not None and giver not in owned:
                waiting += [*giver.inputs, *_captured(giver)]
            elif value.is_initializer():
                weights[value] = None
            else:
                values[value] = None
        return list(values), list(weights)

    return reach


def alive(nodes: Sequence[ir.Node], reach: Reach) -> list[int]:
    """How many values, scalars and shapes aside, are computed by then and still needed, behind each node.

    What the graph gives is not counted: it is kept wherever the cut is made.
    """
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(nodes):
        last.update((value, index) for value in reach(node)[0])
    change = np.zeros(len(nodes) + 1, int)
    for index, node in enumerate(nodes):
        for value in node.outputs:
            is_counted = not value.is_graph_output() and (value.shape is None or len(value.shape) > 1)
            if is_counted and last.get(value, index) > index:
                change[index] += 1
                change[last[value]] -= 1
    return np.cumsum(change)[:-1].tolist()


def _taken(nodes: Collection[ir.Node], index: int, owner: dict[ir.Node, int], reach: Reach) -> set[ir.Value]:
    """What a group takes from the graph's inputs and from other groups."""
    used = {value for node in nodes for value in reach(node)[0]}
    return {value for value in used if (giver := value.producer()) is None or owner[giver] != index}


def _owner(value: ir.Value, owner: dict[ir.Node, int], default: int) -> int:
    giver = value.producer()
    return default if giver is None else owner.get(giver, default)


def _captured(node: ir.Node) -> list[ir.Value]:
    """The values of the main graph that a node's subgraphs use."""
    graphs = [
        graph
        for entry in node.attributes.values()
        if entry.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for graph in ([entry.as_graph()] if entry.type == ir.AttributeType.GRAPH else entry.as_graphs())
    ]
    inner = (use for graph in graphs for use in ir.traversal.RecursiveGraphIterator(graph))
    return [value for use in inner for value in use.inputs if value is not None and value.graph is node.graph]


def _piece(model: ir.Model, taken: Collection[ir.Value], given: Sequence[ir.Value]) -> Piece:
    passed_on = [value for value in given if value.is_graph_input() and value not in taken]
    graph = ir.convenience.extract(model.graph, [*taken, *passed_on], given)
    # It keeps weights in a set: in their own order, the same graph is the same bytes in any process.
    weights = [graph.initializers.pop(name) for name in model.graph.initializers if name in graph.initializers]
    for value in weights:
        graph.register_initializer(value)
    return Piece(ir.Model(graph, ir_version=model.ir_version, functions=list(model.functions.values())))
