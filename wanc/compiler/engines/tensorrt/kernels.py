"""The forms of fused operators that TensorRT has one kernel for."""

from __future__ import annotations

import onnx_ir as ir

from wanc.compiler.engines.tensorrt.attention import otherwise
from wanc.compiler.graphs.values import attribute, size

FEWEST_HEADS, WIDEST_HEAD = 2, 256
"""Attention of a single head, or of wider ones, is products and a softmax (version 1.7, tried up to 384). In FP8 there
have to be 32 keys as well: how many there are is known of each request, and what was built is looked at."""


def has_kernel(node: ir.Node) -> bool:
    """Whether an attention becomes one kernel. Norms and rotations do not: they are parts of larger ones."""
    if node.op_type != "Attention" or otherwise(node):
        return False
    heads, width = attribute(node, "q_num_heads"), size(node.inputs[0], -1) or 0
    return _is_fusable(heads, width // heads)


def scores_have_kernel(scores: ir.Node) -> bool:
    """The same of an attention that is written out, by the product of its queries [batch, heads, rows, width]."""
    heads, width = size(scores.inputs[0], 1), size(scores.inputs[0], -1)
    return heads is not None and width is not None and _is_fusable(heads, width)


def _is_fusable(heads: int, width: int) -> bool:
    return heads >= FEWEST_HEADS and width <= WIDEST_HEAD
