"""Lowering of attention to the form that OpenVINO's CPU plugin makes the better kernel of: products, heads first.

The plugin makes two products and a softmax of an Attention, and generates one kernel for them; but first it multiplies
and transposes all keys, transposes what was rotated as [batch, sequence, heads * size] twice, and rounds to integers
what the heads have joined in three passes more. In a self-attention of the 1.3B shape (2,240 tokens, bfloat16) all that
takes 9 ms beside 90 for the kernel. Written out here, the scale is in the scale of the queries' norm, keys are
transposed inside of the kernel, rotations have the heads first, and the kernel itself rounds what it gives.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.values import attention_heads, attribute, exclusive_producer, rank, size
from wanc.compiler.passes.rewrite import OPSET, Pass, PassOutcome, Refusal

HEADS_FIRST, TRANSPOSED = [0, 2, 1, 3], [0, 1, 3, 2]


def write_out(model: ir.Model) -> PassOutcome:
    """Write out every attention without a mask whose queries come from a norm, on [batch, sequence, heads * size]."""
    outcome = PassOutcome()
    for node in list(model.graph):
        if (node.domain, node.op_type) != ("", "Attention"):
            continue
        heads, width, norm = attention_heads(node), size(node.inputs[0], -1), _norm(node.inputs[0])
        if not heads or width is None or width % heads:
            outcome.refusals.append(Refusal(str(node.outputs[0].name), "the attention does more, or on other axes"))
            continue
        if norm is None:
            outcome.refusals.append(Refusal(str(node.outputs[0].name), "the queries come from no norm of their own"))
            continue
        scale = attribute(node, "scale") or 1 / math.sqrt(width // heads)
        _Writer(model.graph, node).write(norm, scale)
        outcome.fired += 1
    return outcome


def _norm(queries: ir.Value | None) -> ir.Node | None:
    """The norm that queries come from, rotated or not: what it multiplies by may be multiplied by more."""
    rotation = exclusive_producer(queries, "RotaryEmbedding")
    return exclusive_producer(rotation.inputs[0] if rotation else queries, "RMSNormalization")


class _Writer:
    """Puts nodes in the place of an attention."""

    def __init__(self, graph: ir.Graph, attention: ir.Node) -> None:
        self._graph, self._attention = graph, attention
        self._heads: int = attribute(attention, "q_num_heads")
        self._nodes: list[ir.Node] = []
        self._old = [attention]

    def write(self, norm: ir.Node, scale: float) -> None:
        queries, keys, values = self._attention.inputs
        (result,) = self._attention.outputs
        self._multiply(norm, scale)
        keys = self._add("Transpose", self._rotated(keys), perm=TRANSPOSED)
        scores = self._add("MatMul", self._rotated(queries), keys)
        # Only its name tells an attention among the kernels that the plugin generates.
        weights = self._add("Softmax", scores, axis=-1, name=f"{result.name}.softmax")
        attended = self._add("MatMul", weights, self._split(values))
        rounding = _rounding(result)
        for node in rounding:  # in front of what joins the heads, the kernel itself does it
            attended = self._copy(node, attended)
        joined = self._reshape(self._add("Transpose", attended, perm=HEADS_FIRST), [0, 0, -1])
        end = rounding[-1] if rounding else self._attention
        last = end.outputs[0]
        joined.shape, joined.type = last.shape, last.type
        old = [*self._old, *rounding]
        ir.convenience.replace_nodes_and_values(self._graph, end, old, self._nodes, [last], [joined])

    def _multiply(self, norm: ir.Node, scale: float) -> None:
        weight = norm.inputs[1]
        assert weight is not None
        factor = ir.node("Constant", [], {"value": ir.tensor(np.float32(scale))})
        product = ir.node("Mul", [weight, factor.outputs[0]])
        product.outputs[0].shape, product.outputs[0].type = weight.shape, weight.type
        self._graph.insert_before(norm, [factor, product])
        norm.replace_input_with(1, product.outputs[0])

    def _rotated(self, value: ir.Value | None) -> ir.Value:
        """A value with its heads first; if it was rotated, it is so after that."""
        rotation = exclusive_producer(value, "RotaryEmbedding")
        if rotation is None or rank(rotation.inputs[0]) != 3 or attribute(rotation, "num_heads") != self._heads:
            return self._split(value)
        self._old.append(rotation)
        return self._copy(rotation, self._split(rotation.inputs[0]), without="num_heads")

    def _split(self, value: ir.Value | None) -> ir.Value:
        return self._add("Transpose", self._reshape(value, [0, 0, self._heads, -1]), perm=HEADS_FIRST)

    def _reshape(self, value: ir.Value | None, shape: list[int]) -> ir.Value:
        sizes = ir.node("Constant", [], {"value": ir.tensor(shape)})
        self._nodes.append(sizes)
        return self._add("Reshape", value, sizes.outputs[0])

    def _copy(self, node: ir.Node, value: ir.Value, without: str = "") -> ir.Value:
        """The same operation on another value."""
        attributes = {name: node.attributes[name] for name in node.attributes if name != without}
        return self._add(node.op_type, value, *node.inputs[1:], name=node.name, **attributes)

    def _add(self, op_type: str, *inputs: ir.Value | None, name: str | None = None, **attributes: Any) -> ir.Value:
        self._nodes.append(ir.node(op_type, inputs, attributes, name=name))
        return self._nodes[-1].outputs[0]


def _rounding(value: ir.Value) -> tuple[ir.Node, ...]:
    """The nodes that round a value to codes of one scale, and back, where nothing but the last is used elsewhere."""
    quantize = _only_user(value, "QuantizeLinear")
    dequantize = _only_user(quantize.outputs[0], "DequantizeLinear") if quantize else None
    return (quantize, dequantize) if quantize and dequantize and rank(quantize.inputs[1]) == 0 else ()


def _only_user(value: ir.Value, op_type: str) -> ir.Node | None:
    users = [use.node for use in value.uses()]
    fits = len(users) == 1 and not value.is_graph_output() and (users[0].domain, users[0].op_type) == ("", op_type)
    return users[0] if fits else None


WRITTEN_OUT = Pass(
    "attention-products",
    "plain attention → products with the heads first, and the scale in a norm",
    write_out,
    after=("halves",),
    opset=OPSET,
)
