"""Outputs that are drawn anew at each execution: two draws cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from wanc.compiler.graphs.values import constant

DRAWS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


def random_outputs(model: ir.Model) -> frozenset[str]:
    """The names of a graph's outputs that hang on what an operator draws."""
    drawing = {name for name, function in model.functions.items() if any(map(_draws, function.all_nodes()))}
    tainted: set[ir.Value | None] = set()
    for node in model.graph:
        inside = list(_inside(node))
        taken = {value for use in inside for value in use.inputs}
        if any(_draws(use) or use.op_identifier() in drawing for use in inside) or not taken.isdisjoint(
            tainted - {None}
        ):
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


def _draws(node: ir.Node) -> bool:
    if node.domain:
        return False
    if node.op_type == "Dropout":  # in training alone, which an input says
        training = node.inputs[2] if len(node.inputs) > 2 else None
        told = constant(training)
        return training is not None and (told is None or bool(told.any()))
    return node.op_type in DRAWS
