"""Which operations stay in float32 where products are in 16 bits, by the kind of island that they are of."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from wanc.words import Island

NORMS = (
    "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LpNormalization",
    "MeanVarianceNormalization", "Pow", "RMSNormalization", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare",
    "Sqrt",
)  # fmt: skip
ROTATIONS = ("Cos", "RotaryEmbedding", "Sin")
STAYS_FLOAT32 = "wanc.float32"
"""Marks, among the notes that a node has, that it is a part of an island: of none by itself, it would be in 16 bits."""
TOKENS = 3
"""The axes of what a transformer hands on: [batch, tokens, width]."""


def is_island(node: ir.Node, islands: Collection[Island]) -> bool:
    """Whether an operation is of a kind that stays in float32, or a part of one that was written out."""
    return STAYS_FLOAT32 in node.metadata_props or island_of(node) in islands


def island_of(node: ir.Node) -> Island | None:
    """The kind of island that an operation is of; None for products, and all that belongs to them.

    What is added to a product for its bias is none, nor are activations such as x · Sigmoid(x): both sides have the
    same shape. Where features lie in pictures, as a VAE's, a sum is no residual stream.
    """
    if node.op_type in NORMS:
        return "norm"
    if node.op_type in ROTATIONS:
        return "rope"
    rows = [_is_row(value) for value in node.inputs]
    if node.op_type in ("Mul", "Div") and any(rows):
        return "modulation"
    shape = node.outputs[0].shape
    if node.op_type in ("Add", "Sub") and not any(rows) and shape is not None and len(shape) == TOKENS:
        return "residual"
    return None


def _is_row(value: ir.Value | None) -> bool:
    """Whether a value is a number or a row, [width] or [1, 1, width], to what it is computed with."""
    return value is None or value.shape is None or all(size == 1 for size in list(value.shape)[:-1])
