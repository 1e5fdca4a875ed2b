"""Lowering of attention to the products that it is made of, heads first.

TensorRT makes the same fused kernel of these as of the operator Attention, where it has one. Where it has none, as for
a single head, it makes products and a softmax; of the operator it would make nothing, and the build would fail.

Where queries, keys and values are rounded to codes, they are so right in front of the products, and the probabilities
behind the softmax: in that form, and in no other, the kernel multiplies codes. Queries are scaled before that, and a
code of theirs stands for so much less.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.attentions import PROBABILITY_STEP, NamedAttention
from wanc.compiler.graphs.quantizers import CODES
from wanc.compiler.graphs.values import attribute, rank, size, unread_attribute
from wanc.compiler.passes.rewrite import OPSET, Pass, PassOutcome, Refusal

READ = ("q_num_heads", "kv_num_heads", "scale")
HEADS_FIRST, KEYS_TURNED = [0, 2, 1, 3], [0, 2, 3, 1]
SCORES, SOFTMAX, RESULT = ".scores", ".softmax", ".result"
"""What the names of an attention's parts end with, behind its own."""


def write_out(model: ir.Model) -> PassOutcome:
    """Write out every attention on [batch, sequence, heads * size] whose mask, if it has one, is added."""
    outcome = PassOutcome()
    for node in list(model.graph):
        if (node.domain, node.op_type) == ("", "Attention"):
            if reason := otherwise(node):
                outcome.refusals.append(Refusal(str(node.outputs[0].name), reason))
            else:
                _AttentionWriter(model.graph, node).write()
                outcome.fired += 1
    return outcome


def otherwise(node: ir.Node) -> str | None:
    """Why an attention is left to the library."""
    heads, *masks = attribute(node, "q_num_heads", 0), *(value for value in node.inputs[3:] if value is not None)
    if unread_attribute(node, READ) or len(node.outputs) > 1 or len(masks) > 1:
        return "it is causal, capped, has caches, or gives more than the result"
    if any(rank(value) != 3 for value in node.inputs[:3]) or heads != attribute(node, "kv_num_heads", 0):
        return "it is not on [batch, sequence, heads * size], with as many heads in keys as in queries"
    if any(size(node.inputs[index], -1) is None for index in (0, 2)):
        return "how wide its heads are is not known"
    if masks and (node.inputs[3] is None or masks[0].dtype == ir.DataType.BOOL):
        return "its mask is not added"
    return None


class _AttentionWriter:
    """Puts nodes in the place of an attention."""

    def __init__(self, graph: ir.Graph, attention: ir.Node) -> None:
        self._graph, self._attention = graph, attention
        self._heads: int = attribute(attention, "q_num_heads")
        self._nodes: list[ir.Node] = []

    def write(self) -> None:
        taken, (result,), name = NamedAttention("", self._attention), self._attention.outputs, self._attention.name
        steps = taken.scales
        queries, keys, values = taken.inputs if steps else self._attention.inputs[:3]
        width = size(queries, -1) or 0
        scale = attribute(self._attention, "scale") or 1 / math.sqrt(width / self._heads)
        of_queries, of_keys, of_values = (steps.queries * scale, *steps[1:]) if steps else (None, None, None)
        # Before they are rounded to the type of the product, if they are.
        scaled = queries if scale == 1 else self._add("Mul", queries, self._constant(np.float32(scale)))
        rows = self._rounded(self._split(scaled, HEADS_FIRST), of_queries)
        turned = self._rounded(self._split(keys, KEYS_TURNED), of_keys)
        scores = self._add("MatMul", rows, turned, name=f"{name}{SCORES}")
        for mask in filter(None, self._attention.inputs[3:]):
            scores = self._add("Add", scores, mask)
        weights = self._add("Softmax", scores, axis=-1, name=f"{name}{SOFTMAX}")
        weights = self._rounded(weights, PROBABILITY_STEP if steps else None)
        columns = self._rounded(self._split(values, HEADS_FIRST), of_values)
        attended = self._add("MatMul", weights, columns, name=f"{name}{RESULT}")
        joined = self._reshape(self._add("Transpose", attended, perm=HEADS_FIRST), [0, 0, size(values, -1) or -1])
        joined.shape, joined.type = result.shape, result.type
        ir.convenience.replace_nodes_and_values(
            self._graph, self._attention, [self._attention], self._nodes, [result], [joined]
        )

    def _rounded(self, value: ir.Value, step: float | None) -> ir.Value:
        """A value rounded to codes and back; as it is where there is no step."""
        if step is None:
            return value
        scale, zero = self._constant(np.float32(step)), self._constant(np.array(0, CODES["fp8"].numpy()))
        codes = self._add("QuantizeLinear", value, scale, zero)
        return self._add("DequantizeLinear", codes, scale, zero)

    def _split(self, value: ir.Value | None, order: list[int]) -> ir.Value:
        return self._add("Transpose", self._reshape(value, [0, 0, self._heads, -1]), perm=order)

    def _reshape(self, value: ir.Value | None, shape: list[int]) -> ir.Value:
        return self._add("Reshape", value, self._constant(np.array(shape)))

    def _constant(self, array: Any) -> ir.Value:
        return self._add("Constant", value=ir.tensor(array))

    def _add(self, op_type: str, *inputs: ir.Value | None, name: str | None = None, **attributes: Any) -> ir.Value:
        self._nodes.append(ir.node(op_type, inputs, attributes, name=name))
        return self._nodes[-1].outputs[0]


WRITTEN_OUT = Pass(
    "attention-written-out",
    "attention → products with the heads first, of which a fused kernel is made where there is one",
    write_out,
    after=("names",),
    opset=OPSET,
)
