"""Operators for executing graphs in bfloat16 and float16 with numpy: computed in float32, rounded once to their type.

numpy multiplies neither type with BLAS, and onnx's own reference sums in them, squares included. So what multiplies and
what sums is widened first, as an engine's kernels accumulate. Attention and convolution are written here, because
onnx's take memory for all scores, or for every window of a picture. All others are onnx's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx.reference.op_run import OpRun
from onnx.reference.ops import load_op

Array = np.ndarray[Any, Any]
Compute = Callable[..., Array | None]
"""Takes inputs in float32 (None where one is left out), the node's attributes, and `dtype`, which the result will be
rounded to. Returns the result in float32, or None for a form that is left to onnx's own operator."""

NARROW = (np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16))
SMALL_PRODUCT = 2**21
"""Multiplications, at least twice as many as up to which OpenBLAS takes another kernel, which sums in another order."""
MOST_SCORES = 2**22
"""How many scores of attention are in memory at a time: 16 MiB."""
WIDENED = {
    **dict.fromkeys(("Erf", "Exp", "Gemm", "LayerNormalization", "LogSoftmax", "Pow", "RotaryEmbedding"), 0),
    **dict.fromkeys(("ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Sigmoid", "Softmax", "Tanh"), 0),
    # The result has the type of the scale.
    "RMSNormalization": 1,
    # The result is codes.
    "QuantizeLinear": None,
}
"""Operators of onnx's that are given float32, and the input whose type the result is rounded to."""


@cache
def operators(opset: int) -> tuple[type[OpRun], ...]:
    """The operators that take the place of onnx's, in this version of the standard ones."""
    own: Mapping[str, Compute] = {"Attention": attention, "Conv": convolution, "Gelu": gelu, "MatMul": product}
    made = [_operator(name, opset, own.get(name), WIDENED.get(name, 0)) for name in (*own, *WIDENED)]
    return tuple(entry for entry in made if entry is not None)


def attention(
    queries: Array,
    keys: Array,
    values: Array,
    mask: Array | None = None,
    *caches: Array | None,
    dtype: np.dtype[Any],
    **attributes: Any,
) -> Array | None:
    """softmax(scale · q·kᵀ + mask) · v, with the probabilities rounded to `dtype` and nothing else on the way.

    [batch, heads, sequence, size], or [batch, sequence, heads · size] with the numbers of heads as attributes. The
    same rows are computed together however many heads there are, so that a head's numbers do not depend on the others.
    """
    heads = attributes.get("q_num_heads") or queries.shape[1]
    shared = attributes.get("kv_num_heads") or keys.shape[1]
    more = ("is_causal", "softcap", "qk_matmul_output_mode")
    if any(cache is not None for cache in caches) or any(attributes.get(name) for name in more):
        return None
    q, k, v = _heads_first(queries, heads), _heads_first(keys, shared), _heads_first(values, shared)
    batches, _, rows, size = q.shape
    bias = _bias(mask, (batches, heads, rows, k.shape[2]))
    if mask is not None and bias is None:
        return None
    scale, chunk = attributes.get("scale") or 1 / math.sqrt(size), max(1, MOST_SCORES // k.shape[2])
    result = np.empty((batches, heads, rows, v.shape[3]), q.dtype)
    for batch, head in np.ndindex(batches, heads):
        own_keys, own_values = (array[batch, head * shared // heads] for array in (k, v))
        for start in range(0, rows, chunk):
            taken = slice(start, start + chunk)
            scores = (q[batch, head, taken] * q.dtype.type(scale)) @ own_keys.T
            if bias is not None:
                scores += bias[batch, head, taken]
            result[batch, head, taken] = _softmax(scores).astype(dtype).astype(q.dtype) @ own_values
    return result if queries.ndim == 4 else result.transpose(0, 2, 1, 3).reshape(batches, rows, -1)


def product(left: Array, right: Array, **_: Any) -> Array | None:
    """Rows times a matrix. What comes of a row does not depend on how many there are: ranks have fewer than one has."""
    if left.dtype.kind != "f" or left.ndim < 2 or right.ndim != 2 or not right.size:
        return None
    rows = left.reshape(-1, left.shape[-1])
    missing = max(0, SMALL_PRODUCT // right.size + 4 - len(rows))  # even a huge matrix times one row is another kernel
    result = np.pad(rows, [(0, missing), (0, 0)]) @ right if missing else rows @ right
    return result[: len(rows)].reshape(*left.shape[:-1], right.shape[1])


def convolution(
    pixels: Array,
    weights: Array,
    bias: Array | None = None,
    *,
    auto_pad: str,
    group: int,
    strides: list[int] | None,
    dilations: list[int] | None,
    pads: list[int] | None,
    **_: Any,
) -> Array | None:
    """A convolution over any number of axes: one product for each place of the kernel, summed in float32."""
    if auto_pad != "NOTSET":
        return None
    axes = weights.ndim - 2
    strides, dilations, pads = strides or [1] * axes, dilations or [1] * axes, pads or [0] * 2 * axes
    padded = np.pad(pixels, [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)])
    kernel = weights.shape[2:]
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    sizes = [(padded.shape[2 + axis] - reach[axis]) // strides[axis] + 1 for axis in range(axes)]
    batches, inputs, outputs = len(pixels), weights.shape[1], len(weights) // group
    total = np.zeros((batches, group, outputs, math.prod(sizes)), pixels.dtype)
    for place in np.ndindex(*kernel):
        starts = [index * step for index, step in zip(place, dilations, strict=True)]
        ranges = [
            slice(start, start + (size - 1) * stride + 1, stride)
            for start, size, stride in zip(starts, sizes, strides, strict=True)
        ]
        window = padded[(slice(None), slice(None), *ranges)].reshape(batches, group, inputs, -1)
        total += weights[(slice(None), slice(None), *place)].reshape(group, outputs, inputs) @ window
    result = total.reshape(batches, len(weights), *sizes)
    return result if bias is None else result + bias.reshape(-1, *[1] * axes)


def gelu(x: Array, *, approximate: str, **_: Any) -> Array:
    """Gelu, exact or by its tanh."""
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + x.dtype.type(0.044715) * x * x * x)
        return x * (x.dtype.type(0.5) * (1 + np.tanh(inner)))
    exact: Array = np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2))
    return x * (x.dtype.type(0.5) * (1 + exact))


def _operator(op_type: str, opset: int, compute: Compute | None, typed_as: int | None) -> type[OpRun] | None:
    """An operator that widens what it is given; None where this version has none of this name."""
    if not onnx.defs.has(op_type, opset, ""):
        return None
    # Gelu is a function in onnx, for which it has no class.
    base: Any = OpRun if op_type == "Gelu" else load_op("", op_type, opset)

    def run(self: Any, *inputs: Array | None, **context: Any) -> tuple[Array, ...]:
        wide = [_widened(entry) for entry in inputs]
        given = inputs[typed_as] if typed_as is not None else None
        dtype = given.dtype if given is not None else None
        result = None
        if compute is not None and len(self.onnx_node.output) == 1:
            attributes = {name: getattr(self, name) for name in self.attributes_names_}
            result = compute(*wide, dtype=dtype, **attributes)
        first, *others = base.run(self, *wide, **context) if result is None else (result,)
        return (first.astype(dtype, copy=False) if dtype is not None else first, *others)

    schema = onnx.defs.get_schema(op_type, opset, "")
    members = {"op_domain": "", "op_schema": schema, "run": run}
    return type(op_type, (base,), members if base is not OpRun else {**members, "_run": run})


def _widened(array: Array | None) -> Array | None:
    return array.astype(np.float32) if array is not None and array.dtype in NARROW else array


def _heads_first(array: Array, heads: int) -> Array:
    """[batch, heads, sequence, size] of that, or of [batch, sequence, heads · size]."""
    if array.ndim == 4:
        return array
    return np.ascontiguousarray(array.reshape(*array.shape[:2], heads, -1).transpose(0, 2, 1, 3))


def _bias(mask: Array | None, shape: tuple[int, ...]) -> Array | None:
    """A mask as it is added to scores of this shape; None where there is none, or one of fewer keys."""
    if mask is None or mask.shape[-1] != shape[-1]:
        return None
    added = np.where(mask, np.float32(0), np.float32(-np.inf)) if mask.dtype == bool else mask
    return np.broadcast_to(added, shape)


def _softmax(scores: Array) -> Array:
    """Over the last axis, in place; a row that is masked wholly is zeros, as onnx has it."""
    largest = scores.max(axis=-1, keepdims=True)
    scores -= np.where(np.isneginf(largest), 0, largest)
    np.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    scores /= np.where(total == 0, 1, total)
    return scores
