"""Cutting a graph into segments, each with no more weights than fit: at the places where the fewest values are alive.

Segments are executed one after the other; what one gives and a later one takes is kept between them. Constants and
views of weights are part of every segment that uses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.whole import constants

FLOAT_BYTES = 4
"""What an element of a weight takes when it is computed with, whatever it is stored as."""


@dataclass(frozen=True)
class Segment:
    """A piece of a graph: its inputs are those of the whole or outputs of earlier segments, by the same names."""

    model: ir.Model

    @property
    def inputs(self) -> list[str]:
        return [str(value.name) for value in self.model.graph.inputs]

    @property
    def outputs(self) -> list[str]:
        return [str(value.name) for value in self.model.graph.outputs]


def cut(model: ir.Model, most_weight_bytes: int) -> list[Segment]:
    """The segments of a graph whose nodes stand where they are first needed, in the order of execution.

    A single node with more weights than that is a segment of its own.
    """
    views = constants(model.graph)
    nodes = [node for node in model.graph if node not in views]
    ends = _ends([_weights(node, views) for node in nodes], _alive(nodes, model.graph), most_weight_bytes)
    return [_segment(model, views, nodes[start:end], nodes[end:]) for start, end in pairwise([0, *ends])]


def _ends(weights: Sequence[Mapping[ir.Value, int]], alive: Sequence[int], most: int) -> list[int]:
    """Behind how many nodes each segment ends: at the narrowest place in the second half of what fits.

    `weights` are the bytes of each that a node uses.
    """
    ends: list[int] = []
    start = 0
    while start < len(weights):
        held = _held(weights[start:], most)
        longest = start + max(1, len(held))
        if longest < len(weights):
            shortest = start + max(1, int(np.searchsorted(held, most // 2, side="left")))
            candidates = range(min(shortest, longest), longest + 1)
            start = min(candidates, key=lambda end: (alive[end - 1], -end))
        else:
            start = len(weights)
        ends.append(start)
    return ends


def _held(weights: Sequence[Mapping[ir.Value, int]], most: int) -> list[int]:
    """The bytes that the first nodes use together, each with those before it, as far as that is not too much."""
    seen: dict[ir.Value, int] = {}
    held: list[int] = []
    total = 0
    for used in weights:
        total += sum(count for value, count in used.items() if value not in seen)
        if total > most:
            break
        seen |= used
        held.append(total)
    return held


def _weights(node: ir.Node, views: set[ir.Node]) -> dict[ir.Value, int]:
    """The bytes of the weights that a node uses, directly or through views of them."""
    found: dict[ir.Value, int] = {}
    waiting = [value for value in node.inputs if value is not None]
    while waiting:
        value = waiting.pop()
        if value.is_initializer():
            found[value] = FLOAT_BYTES * (value.const_value.size if value.const_value is not None else 0)
        elif (giver := value.producer()) is not None and giver in views:
            waiting.extend(value for value in giver.inputs if value is not None)
    return found


def _alive(nodes: Sequence[ir.Node], graph: ir.Graph) -> list[int]:
    """How many values, scalars and shapes aside, are known and still needed behind each node."""
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(nodes):
        last.update((value, index) for value in node.inputs if value is not None)
    last.update((value, len(nodes)) for value in graph.outputs)
    change = np.zeros(len(nodes) + 1, int)
    for index, node in enumerate(nodes):
        for value in node.outputs:
            if last.get(value, index) > index and (value.shape is None or len(value.shape) > 1):
                change[index] += 1
                change[min(last[value], len(nodes))] -= 1
    return np.cumsum(change).tolist()


def _segment(model: ir.Model, views: set[ir.Node], nodes: Sequence[ir.Node], later: Sequence[ir.Node]) -> Segment:
    inside = {value for node in nodes for value in node.outputs}
    used = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None)
    given = [value for value in used if value.is_graph_input() or value.producer() is not None]
    inputs = [value for value in given if value not in inside and value.producer() not in views]
    needed = {value for node in later for value in node.inputs} | set(model.graph.outputs)
    outputs = [value for node in nodes for value in node.outputs if value in needed]
    graph = ir.convenience.extract(model.graph, inputs, outputs)
    return Segment(ir.Model(graph, ir_version=model.ir_version))
