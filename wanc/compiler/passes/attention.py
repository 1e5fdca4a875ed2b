"""Attention (arXiv 1706.03762) → the operator Attention, on [batch, sequence, heads * size]."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import READ, WRITTEN_OUT, attribute, producer, rank, same_dimension, scalar, size
from wanc.compiler.passes.rewrite import OPSET, Pass, Reads, Rewrite, accept, refuse, rewriting, skip

HEADS_FIRST = [0, 2, 1, 3]
SWAPPED = [0, 2, 1]
LAST_WITH_KERNELS = 24
"""Of the version of Attention behind it engines make its parts again."""


class Scores(NamedTuple):
    """What is under the softmax: scale · (query · keyᵀ) + masks. The key is a permutation of `key`'s axes."""

    query: ir.Value
    key: ir.Value
    permutation: list[int]
    scale: float
    masks: tuple[ir.Value, ...]


class WrittenOut(Rewrite):
    """softmax(scale · q·kᵀ + masks) · v on [batch, heads, sequence, size] → Attention.

    What it makes of masks is marked: in the graph as it was, a query that may look at no key looks at all, and
    engines have an opinion of their own about that.
    """

    reads: ClassVar[Reads] = {"Softmax": ("axis",)}
    dtypes = (ir.DataType.FLOAT, ir.DataType.FLOAT16)

    def pattern(self, op, scores, v):  # pyright: ignore
        return op.MatMul(op.Softmax(scores, _outputs=["weights"]), v, _outputs=["result"])

    def check(self, context, scores, v, weights, result) -> MatchResult:  # pyright: ignore
        if attribute(weights.producer(), "axis", -1) not in (-1, (rank(weights) or 0) - 1):
            return refuse("the softmax is not over the last axis")
        if rank(result) != 4:
            return refuse("the product is not [batch, heads, sequence, size]")
        found = _scores(scores)
        if found is None:
            return refuse("the scores are not a product of a query and a transposed key, scaled and masked")
        if not all(rank(value) == 4 for value in (found.query, found.key, v)):
            return refuse("query, key and value are not [batch, heads, sequence, size]")
        for axis, name in enumerate(("batch", "heads")):
            if not same_dimension(found.query, v, axis) or not same_dimension(
                found.key, v, found.permutation[axis], axis
            ):
                return refuse(f"query, key and value differ in their {name}")
        if found.masks and not _cover(weights, found):
            return refuse("the masks together are not [query, key], or more than the product has")
        self._scores = found
        return accept()

    def rewrite(self, op, v, **_):  # pyright: ignore
        found = self._scores
        masks = list(found.masks)
        while len(masks) > 1:
            masks[-2:] = [op.Add(*masks[-2:])]
        key = op.Transpose(found.key, perm=found.permutation)
        attended = op.Attention(found.query, key, v, *masks, scale=found.scale)
        if masks:
            attended.producer().metadata_props[WRITTEN_OUT] = ""
        return attended


def _cover(scores: ir.Value, found: Scores) -> bool:
    """Whether masks leave the product's shape as it is, and have an entry for each query and key.

    ONNX would stretch a mask along either, but onnxruntime does not.
    """
    product = ((found.query, 0), (found.query, 1), (found.query, 2), (found.key, found.permutation[2]))
    if not all(same_dimension(scores, value, axis, other) for axis, (value, other) in enumerate(product)):
        return False
    return all(any(_reaches(mask, scores, back) for mask in found.masks) for back in (1, 2))


def _reaches(mask: ir.Value, scores: ir.Value, back: int) -> bool:
    """Whether a mask has the scores' size in the axis so far from the end."""
    dimensions = rank(mask) or 0
    return dimensions >= back and same_dimension(mask, scores, dimensions - back, 4 - back)


def _scores(value: ir.Value | None) -> Scores | None:
    """Walk up from the softmax: masks, then the scale, then the product and scales on its sides."""
    masks: list[ir.Value] = []
    scale = 1.0
    while node := producer(value, "Add", "Mul", "Div"):
        left, right = node.inputs
        assert left is not None and right is not None
        if node.op_type == "Add":
            if scale != 1.0:
                return None  # the mask is scaled as well
            product, mask = (left, right) if _holds_product(left) else (right, left)
            masks.insert(0, mask)
            value = product
        elif factor := scalar(right, left):
            scale, value = scale * (factor if node.op_type == "Mul" else 1 / factor), left
        else:
            return None
    product = producer(value, "MatMul")
    if product is None:
        return None
    query, query_scale = _unscaled(product.inputs[0])
    transposed, key_scale = _unscaled(product.inputs[1])
    key = _transposed(transposed)
    scale *= query_scale * key_scale
    if query is None or key is None or not math.isfinite(scale) or not scale:
        return None  # of a scale of 0 not every engine thinks that it is one
    return Scores(query, *key, scale, tuple(masks))


def _holds_product(value: ir.Value) -> bool:
    node = producer(value, "MatMul", "Mul", "Div", "Add")
    return node is not None and (node.op_type == "MatMul" or any(_holds_product(i) for i in node.inputs[:1] if i))


def _unscaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    node = producer(value, "Mul")
    factor = scalar(node.inputs[1], *filter(None, node.inputs[:1])) if node else None
    return (value, 1.0) if node is None or factor is None else (node.inputs[0], factor)


def _transposed(value: ir.Value | None) -> tuple[ir.Value, list[int]] | None:
    """A tensor of four axes and their permutation to the key whose last two axes were swapped to `value`."""
    node = producer(value, "Transpose")
    permutation = list(attribute(node, "perm", ())) if node else []
    if node is not None and node.inputs[0] is not None and len(permutation) == 4:
        return node.inputs[0], [permutation[axis] for axis in (0, 1, 3, 2)]
    # As exporters write it: [b, h, s, d] → [b*h, s, d] → [b*h, d, s] → [b, h, d, s].
    inner = producer(node_input(value, "Reshape"), "Transpose")
    if inner is None or list(attribute(inner, "perm", ())) != SWAPPED or value is None:
        return None
    key = node_input(inner.inputs[0], "Reshape")
    if key is None or rank(key) != 4 or rank(value) != 4:
        return None
    same = same_dimension(key, value, 1) and same_dimension(key, value, 3, 2) and same_dimension(key, value, 2, 3)
    return (key, [0, 1, 2, 3]) if same else None


def node_input(value: ir.Value | None, op_type: str) -> ir.Value | None:
    """The first input of the node that computes a value, if it is of this operator."""
    node = producer(value, op_type)
    return node.inputs[0] if node else None


class HeadsLast(Rewrite):
    """Attention on [batch, heads, sequence, size], transposed back → Attention on [batch, sequence, heads * size]."""

    reads: ClassVar[Reads] = {"Attention": READ["Attention"]}

    def pattern(self, op, q, k, v):  # pyright: ignore
        attended = op.Attention(q, k, v, _allow_other_inputs=True, _outputs=["attended"])
        return op.Transpose(attended, perm=HEADS_FIRST)

    def check(self, context, q, k, v, attended) -> MatchResult:  # pyright: ignore
        return _heads_known(q, k, v, attended)

    def rewrite(self, op, q, k, v, attended):  # pyright: ignore
        rows = _attend_rows(op, q, k, v, attended.producer())
        return op.Reshape(rows, op.Constant(value_ints=[0, 0, size(q, 1), size(v, 3)]))


class OneHead(Rewrite):
    """Attention on [batch, 1, sequence, size] → Attention on [batch, sequence, size]: the same numbers in order."""

    reads: ClassVar[Reads] = {"Attention": READ["Attention"]}

    def pattern(self, op, q, k, v):  # pyright: ignore
        return op.Attention(q, k, v, _allow_other_inputs=True, _outputs=["attended"])

    def check(self, context, q, k, v, attended) -> MatchResult:  # pyright: ignore
        if rank(q) == 3 or size(q, 1) != 1:
            return skip()
        return _heads_known(q, k, v, attended)

    def rewrite(self, op, q, k, v, attended):  # pyright: ignore
        axis = op.Constant(value_ints=[1])
        node = attended.producer()
        rows = [op.Squeeze(value, axis) for value in (q, k, v)]
        return op.Unsqueeze(_attention(op, rows, q, k, node), axis)


def _heads_known(q: ir.Value, k: ir.Value, v: ir.Value, attended: ir.Value) -> MatchResult:
    node = attended.producer()
    assert node is not None
    if len(node.outputs) > 1 or any(value is not None for value in node.inputs[4:]):
        return refuse("it has caches, or gives more than the result")
    if any(attribute(node, name) for name in ("is_causal", "softcap", "softmax_precision")):
        return refuse("it is causal, capped, or asks for a precision of its own")
    if any(rank(value) != 4 or size(value, 1) is None or size(value, 3) is None for value in (q, k, v)):
        return refuse("query, key and value are not [batch, heads, sequence, size] with known heads and size")
    return accept()


def _attend_rows(op, q: ir.Value, k: ir.Value, v: ir.Value, node: ir.Node):  # pyright: ignore
    rows = [
        op.Reshape(
            op.Transpose(value, perm=HEADS_FIRST),
            op.Constant(value_ints=[0, 0, (size(value, 1) or 0) * (size(value, 3) or 0)]),
        )
        for value in (q, k, v)
    ]
    return _attention(op, rows, q, k, node)


def _attention(op, rows: list[ir.Value], q: ir.Value, k: ir.Value, node: ir.Node):  # pyright: ignore
    scale = attribute(node, "scale", 1 / math.sqrt(size(q, 3) or 1))
    heads = {"q_num_heads": size(q, 1) or 0, "kv_num_heads": size(k, 1) or 0}
    attended = op.Attention(*rows, *node.inputs[3:4], scale=scale, **heads)
    attended.producer().metadata_props.update(node.metadata_props)
    return attended


PASS = Pass(
    "attention",
    "products and softmax → Attention",
    rewriting(WrittenOut),
    after=("rope", "norms"),
    opset=OPSET,
    last=LAST_WITH_KERNELS,
)
HEADS = Pass(
    "attention-heads",
    "Attention on [batch, sequence, heads * size], without transposes",
    rewriting(HeadsLast, OneHead),
    after=("attention",),
    opset=OPSET,
)
