"""Random operators: each node is a draw of its own, however much two of them look alike.

onnxscript and onnx_ir know some of them by name. ONNX says of each operator whether it always gives the same.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import onnx
import onnx_ir as ir

from wanc.compiler.graphs.values import constant

CONTRIBUTED = ("BiasDropout", "BitmaskBiasDropout", "BitmaskDropout", "Sampling")
"""Those of com.microsoft, of which ONNX knows nothing."""
NUMBER = "draw"
"""The attribute by which draws are told apart while somebody compares nodes."""


def draws(model: ir.Model) -> set[ir.Node]:
    """The nodes of a model that draw, or call a function or hold a graph which does."""
    calls = {key: list(function.all_nodes()) for key, function in model.functions.items()}
    drawing: set[ir.OperatorIdentifier] = set()
    while more := {
        key for key, nodes in calls.items() if key not in drawing and any(_draws(node, drawing) for node in nodes)
    }:
        drawing |= more
    everywhere = [*model.graph.all_nodes(), *(node for nodes in calls.values() for node in nodes)]
    return {node for node in everywhere if _draws(node, drawing)}


@contextmanager
def draws_told_apart(model: ir.Model) -> Generator[None]:
    """While this lasts, no two draws look alike to who compares nodes by operator, inputs and attributes."""
    numbered = list(enumerate(draws(model)))
    for number, node in numbered:
        node.attributes[NUMBER] = ir.AttrInt64(NUMBER, number)
    try:
        yield
    finally:
        for _, node in numbered:
            del node.attributes[NUMBER]


def _draws(node: ir.Node, functions: Iterable[ir.OperatorIdentifier]) -> bool:
    if node.op_identifier() in functions:
        return True
    if (node.domain, node.op_type) == ("", "Dropout"):  # in training alone, which an input says
        training = node.inputs[2] if len(node.inputs) > 2 else None
        told = constant(training)
        return training is not None and (told is None or bool(told.any()))
    if node.domain == "com.microsoft":
        return node.op_type in CONTRIBUTED
    try:
        described = onnx.defs.get_schema(node.op_type, node.domain)
    except onnx.defs.SchemaError:
        return False
    # Its stubs do not know it.
    determinism = described.node_determinism  # pyright: ignore[reportAttributeAccessIssue]
    return determinism == onnx.defs.OpSchema.NodeDeterminism.NonDeterministic
