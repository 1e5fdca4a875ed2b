"""What a graph may be asked: its interface, with what its inputs' numbers are used for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx_ir as ir

from wanc.compiler.graphs.index_ranges import index_ranges
from wanc.compiler.program.program import ProgramGraph
from wanc.models.graph import Input, Output

WIDE = (ir.DataType.INT64, ir.DataType.UINT64)
ARITHMETIC = frozenset(
    {"Abs", "Add", "And", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast", "Clip", "Concat", "CumSum"}
    | {"Div", "Equal", "Flatten", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "MatMul", "Max"}
    | {"Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Sign"}
    | {"Sub", "Sum", "Transpose", "Where", "Xor"}
)
"""Operators of which no result's size goes by their inputs' numbers, and neither does what they read."""
FIRST_ONLY = frozenset({"Expand", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Unsqueeze"})
"""The same, of their first input."""
FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class Asked:
    """A graph's interface, the sizes of its example, and the values that a recipe gives.

    Inputs have their ranges; those in `wide` may hold any integer: no size, index or number of rounds goes by them.
    What is added to scores before a Softmax is in `masks`.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    example: Mapping[str, int]
    values: Mapping[str, float]
    wide: frozenset[str]
    masks: frozenset[str]

    @classmethod
    def of(cls, entry: ProgramGraph, model: ir.Model) -> Asked:
        """`model` is the graph as it was exported."""
        ranges = index_ranges(model.graph)
        inputs = tuple(replace(value, range=ranges.get(value.name)) for value in entry.inputs)
        wide = {str(value.name) for value in model.graph.inputs if value.dtype in WIDE and _is_arithmetic(value)}
        masks = {str(value.name) for value in model.graph.inputs if value.dtype in FLOATS and _masks(value)}
        wide -= ranges.keys()
        return cls(inputs, entry.outputs, entry.example, entry.values, frozenset(wide), frozenset(masks))


def _is_arithmetic(value: ir.Value) -> bool:
    """Whether nothing but arithmetic is done with an input's numbers, and with what is computed of them."""
    waiting, seen = [value], {value}
    while waiting:
        for use in waiting.pop().uses():
            node = use.node
            known = node.op_type in ARITHMETIC or (node.op_type in FIRST_ONLY and use.idx == 0)
            if node.domain or node.graph is not value.graph or not known:
                return False
            fresh = set(node.outputs) - seen
            seen |= fresh
            waiting += fresh
    return True


def _masks(value: ir.Value) -> bool:
    """Whether an input is added to what a Softmax is taken of, or is the mask of an Attention."""
    return any(
        (use.node.op_type == "Attention" and use.idx == 3)
        or (use.node.op_type in FIRST_ONLY and use.idx == 0 and _masks(use.node.outputs[0]))
        or (use.node.op_type == "Add" and any(after.node.op_type == "Softmax" for after in use.node.outputs[0].uses()))
        for use in value.uses()
    )
