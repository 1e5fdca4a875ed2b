"""Which operators compute every token by itself: what is split along the tokens goes through them as it is.

Values are [batch, tokens, channels]. What is added to or multiplied with one is broadcast over the tokens, or has them.
"""

from __future__ import annotations

import onnx_ir as ir

from wanc.compiler.graphs.values import attention_heads, attribute, rank, size

TOKENS = -2
"""The axis of the tokens, counted from the end as broadcasting does."""
ELEMENTWISE = ("Add", "Cast", "Div", "Erf", "Exp", "Gelu", "Identity", "Mul", "Neg", "Pow", "Sigmoid", "Sub", "Tanh")


def carrying(node: ir.Node) -> list[ir.Value] | None:
    """The inputs of a node whose tokens its outputs have; None where it mixes tokens, or is not known here.

    An attention takes its queries' tokens. Its keys and values may be split as well: that is for the caller to see.
    """
    if node.domain:
        return None
    inputs = [value for value in node.inputs if value is not None]
    data = inputs[:1]
    match node.op_type:
        case "Attention":
            return data if attention_heads(node) else None
        case "RotaryEmbedding":
            return [value for value in inputs if has_tokens(value)] if rank(data[0]) == 3 and len(inputs) == 3 else None
        case "MatMul":
            return data if rank(inputs[1]) == 2 else None
        case "LayerNormalization" | "RMSNormalization" | "Softmax":
            return data if _is_last(node, data[0]) else None
        case "Split":
            return data if _is_last(node, data[0], 0) else None
        case "QuantizeLinear" | "DequantizeLinear":
            return data if rank(inputs[1]) == 0 else None
        case op_type if op_type in ELEMENTWISE:
            return [value for value in inputs if has_tokens(value)]
        case _:
            return None


def has_tokens(value: ir.Value) -> bool:
    """Whether a value has an axis of tokens that is not broadcast over those of others."""
    return (rank(value) or 0) >= 2 and size(value, TOKENS) != 1


def _is_last(node: ir.Node, value: ir.Value, default: int = -1) -> bool:
    return attribute(node, "axis", default) in (-1, (rank(value) or 0) - 1)
