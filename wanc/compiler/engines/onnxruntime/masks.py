"""Lowering of masks for ONNX Runtime, whose kernel of Attention is particular about them.

It takes no mask that one row or one column stands for. And for a query that may look at no key it gives zeros. That is
right where a model asked for Attention; where it was written out, the softmax makes equal parts of what is equally far
away: of float32's least value on all keys the mean of all values, and NaNs of infinities. The kernel knows such a query
by its least values: next to them lie others, with which it computes the same as the softmax.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.values import WRITTEN_OUT, constant, rank, size
from wanc.compiler.passes.rewrite import OPSET, Pass, PassOutcome, Refusal

LAST = 24
"""The last version of the standard operators of whose Attention there is a kernel."""
DTYPES = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
"""What it computes in."""
MASK = 3  # the input


def has_kernel(node: ir.Node, opset: int) -> bool:
    """Whether there is a kernel for a standard operator, in a graph of this opset; else its parts are computed."""
    value = node.inputs[0]
    if node.op_type not in ("Attention", "RotaryEmbedding") or value is None:
        return True
    return value.dtype in (*DTYPES, None) and (node.op_type != "Attention" or opset <= LAST)


def mend_masks(model: ir.Model) -> PassOutcome:
    """Stretch masks that a row or a column stands for, and keep what queries without a key give."""
    outcome = PassOutcome()
    for node in model.graph.all_nodes():
        mask = node.inputs[MASK] if len(node.inputs) > MASK else None
        if (node.domain, node.op_type) != ("", "Attention") or mask is None:
            continue
        if not has_kernel(node, model.opset_imports[""]):
            outcome.refusals.append(Refusal(str(node.outputs[0].name), "there is no kernel for it"))
            continue
        mended = _stretched(node, mask)
        if node.metadata_props.pop(WRITTEN_OUT, None) is not None and _may_hide_all(mask):
            mended = _never_least(node, mended)
        if mended is not mask:
            node.replace_input_with(MASK, mended)
            outcome.fired += 1
    return outcome


def stretch_masks(model: ir.Model) -> None:
    """The first of the two alone: what a graph means stays as it is written."""
    for node in list(model.graph.all_nodes()):
        mask = node.inputs[MASK] if len(node.inputs) > MASK else None
        if (node.domain, node.op_type) == ("", "Attention") and mask is not None:
            node.replace_input_with(MASK, _stretched(node, mask))


def _stretched(node: ir.Node, mask: ir.Value) -> ir.Value:
    """The mask with a row for each query and a column for each key; one row or column may stand for all so far."""
    query, key = node.inputs[:2]
    alone = [back for back in (2, 1) if (rank(mask) or 0) >= back and size(mask, -back) == 1]
    cached = len(node.inputs) > 4 and node.inputs[4] is not None
    sources = {2: query, 1: key}
    if not alone or cached or all(size(sources[back], -2) == 1 for back in alone):
        return mask
    one = _constant(node, np.array([1]))
    sizes = [_insert(node, "Shape", sources[back], start=-2, end=-1) if back in alone else one for back in (2, 1)]
    return _insert(node, "Expand", mask, _insert(node, "Concat", *sizes, axis=0))


def _may_hide_all(mask: ir.Value) -> bool:
    """Whether a query may be kept from all keys; of a mask that is computed nobody knows."""
    if mask.dtype not in DTYPES:
        return False
    known = constant(mask)
    return known is None or not (known > _least(mask)).any(axis=-1).all()


def _never_least(node: ir.Node, mask: ir.Value) -> ir.Value:
    """The mask with what lies next to the least value of its type for that; of infinities alone come NaNs."""
    least = _least(mask)
    above = np.nextafter(least, type(least)(math.inf))
    least, above, zero = (_constant(node, number) for number in (least, above, type(least)(0)))
    kept = _insert(node, "Where", _insert(node, "Equal", mask, least), above, mask)
    most = _insert(node, "ReduceMax", mask, _constant(node, np.array([-1])), keepdims=1)
    return _insert(node, "Add", kept, _insert(node, "Mul", most, zero))


def _least(mask: ir.Value) -> np.floating[Any]:
    assert mask.dtype is not None
    numpy = mask.dtype.numpy()
    return numpy.type(np.finfo(numpy).min)


def _constant(before: ir.Node, number: np.floating[Any] | np.ndarray[Any, Any]) -> ir.Value:
    return _insert(before, "Constant", value=ir.tensor(number))


def _insert(before: ir.Node, op_type: str, *inputs: ir.Value | None, **attributes: object) -> ir.Value:
    node = ir.node(op_type, inputs, attributes)  # pyright: ignore[reportArgumentType]
    assert before.graph is not None
    before.graph.insert_before(before, node)
    return node.outputs[0]


MASKS = Pass(
    "masks",
    "masks of attention → with a row for each query and a column for each key, as the kernel takes them",
    mend_masks,
    opset=OPSET,
)
