"""Outputs that are drawn anew at each execution: two draws cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from wanc.compiler.passes.draws import draws


def random_outputs(model: ir.Model) -> frozenset[str]:
    """The names of a graph's outputs that hang on what an operator draws."""
    drawing = draws(model)
    tainted: set[ir.Value] = set()
    for node in model.graph:
        inside = list(_inside(node))
        taken = {value for use in inside for value in use.inputs}
        if not drawing.isdisjoint(inside) or not tainted.isdisjoint(taken):
            tainted.update(node.outputs)
    return frozenset(str(value.name) for value in model.graph.outputs if value in tainted)


def _inside(node: ir.Node) -> Iterator[ir.Node]:
    """A node and those of its subgraphs."""
    yield node
    for entry in node.attributes.values():
        if entry.type == ir.AttributeType.GRAPH:
            yield from entry.as_graph().all_nodes()
        elif entry.type == ir.AttributeType.GRAPHS:
            for graph in entry.as_graphs():
                yield from graph.all_nodes()
