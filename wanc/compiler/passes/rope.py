"""Rotary position embedding (arXiv 2104.09864) → RotaryEmbedding, from whichever form a model wrote it in.

The rotation is recognised by its arithmetic: (a·cos - b·sin, a·sin + b·cos), put together along the last axis. Which
elements a and b are is found by following an index through slices, splits and reshapes back to one tensor. So strided
slices, `unflatten` and `unbind`, and a view as complex numbers are all the same; in-place writes, which export as
ScatterND, are turned into stacking first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import attribute, constant, integers, producer, rank, same_dimension, size
from wanc.compiler.passes.rewrite import FLOATS, OLDEST, OPSET, Pass, Reads, Rewrite, accept, refuse, rewriting


class StridedWrites(Rewrite):
    """Two writes to the even and the odd entries of an axis → the two stacked and flattened."""

    reads: ClassVar[Reads] = {"ScatterND": ("reduction",)}

    def pattern(self, op, buffer, first, second, even, odd):  # pyright: ignore
        written = op.ScatterND(buffer, first, even, _outputs=["once"])
        return op.ScatterND(written, second, odd, _outputs=["twice"])

    def check(self, context, first, second, even, odd, once, twice, **_) -> MatchResult:  # pyright: ignore
        if any(attribute(value.producer(), "reduction", "none") != "none" for value in (once, twice)):
            return refuse("the writes add to what is there")
        length = size(twice, 0)
        if length is None or length % 2:
            return refuse("the axis that is written to has no even number of entries")
        rows = [(constant(value), np.arange(start, length, 2)[:, None]) for start, value in enumerate((first, second))]
        if not all(found is not None and np.array_equal(found, wanted) for found, wanted in rows):
            return refuse("the writes are not to the even and then the odd entries of an axis")
        transposes = [producer(value, "Transpose") for value in (even, odd)]
        permutations = {tuple(attribute(node, "perm", ())) if node else None for node in transposes}
        self._permutation: tuple[int, ...] = permutations.pop() or ()
        if permutations or not self._permutation or self._permutation[0] != len(self._permutation) - 1:
            return refuse("the entries written do not come from one last axis")
        return accept()

    def rewrite(self, op, even, odd, twice, **_):  # pyright: ignore
        permutation: list[int] = list(self._permutation)
        inverse = [permutation.index(axis) for axis in range(len(permutation))]
        halves = [
            op.Unsqueeze(op.Transpose(value, perm=inverse), op.Constant(value_ints=[-1])) for value in (even, odd)
        ]
        shape = [0] * (len(permutation) - 1) + [size(twice, 0)]
        stacked = op.Reshape(op.Concat(*halves, axis=-1), op.Constant(value_ints=shape))
        return op.Transpose(stacked, perm=permutation)


class Rotation(Rewrite):
    """Stacked halves of a rotation, flattened → RotaryEmbedding on [batch, sequence, heads * size]."""

    commutes = True
    reads: ClassVar[Reads] = {"Concat": ("axis",), "Reshape": ("allowzero",)}
    dtypes = FLOATS
    # Axes of 1 behind the last one of halves and tables.
    behind = 0

    def pattern(self, op, a, b, cos, sin, shape):  # pyright: ignore
        last = {"_allow_other_inputs": True}
        real, imaginary = (op.Unsqueeze(half, **last) for half in _turned(op, a, b, cos, sin))
        return op.Reshape(op.Concat(real, imaginary, _outputs=["pairs"]), shape)

    def check(self, context, a, b, cos, sin, shape, pairs) -> MatchResult:  # pyright: ignore
        found = even_and_odd(a, b)
        if found is None:
            return refuse("the two halves are not the even and the odd entries of one tensor's last axis")
        heads, half = size(pairs, 2), size(pairs, 3)
        stacked = attribute(pairs.producer(), "axis") in (-1, 4) and size(pairs, 4) == 2
        if rank(pairs) != 5 or not stacked or not heads or not half:
            return refuse("the halves are not stacked to [batch, sequence, heads, size / 2, 2], heads and size known")
        if size(pairs, 0) != 1:
            return refuse("the batch is not 1, and cos and sin have no row for each entry")
        if (rank(found.source) or 0) < 3 or not all(self._is_half(value, pairs, heads) for value in (a, b)):
            return refuse("the halves are not [1, sequence, heads, size / 2]")
        if not all(self._is_half(table, pairs, 1) for table in (cos, sin)):
            return refuse("cos and sin are not [1, sequence, 1, size / 2]")
        sizes = integers(shape)
        if sizes is None:
            return refuse("the shape of the result is computed")
        # It copies sizes of the pairs; those from the third on are other ones here.
        self._sizes = sizes[:2] + [size or copied for size, copied in zip(sizes[2:], (heads, half, 2), strict=False)]
        self._source, self._heads, self._width = found.source, heads, 2 * half
        return accept()

    def _is_half(self, value: ir.Value, pairs: ir.Value, heads: int) -> bool:
        """Whether a value is [1, sequence, heads, size / 2], with the pairs' sequence.

        Exporters do not always know the last size, though no other one goes together with the pairs'.
        """
        if rank(value) != 4 + self.behind or size(value, 3) not in (size(pairs, 3), None):
            return False
        fixed = [size(value, axis) for axis in (0, 2, *range(4, 4 + self.behind))] == [1, heads, *[1] * self.behind]
        return fixed and (size(value, 1) == 1) == (size(pairs, 1) == 1)

    def rewrite(self, op, cos, sin, **_):  # pyright: ignore
        rows = op.Reshape(self._source, op.Constant(value_ints=[0, 0, self._heads * self._width]))
        tables = [op.Squeeze(table, op.Constant(value_ints=[2, 4][: 1 + self.behind])) for table in (cos, sin)]
        turned = op.RotaryEmbedding(rows, *tables, interleaved=1, num_heads=self._heads)
        return op.Reshape(turned, op.Constant(value_ints=self._sizes))


class ComplexRotation(Rotation):
    """A product of complex numbers, as it is exported: real and imaginary parts keep an axis of 1, and are joined."""

    behind = 1

    def pattern(self, op, a, b, cos, sin, shape):  # pyright: ignore
        return op.Reshape(op.Concat(*_turned(op, a, b, cos, sin), _outputs=["pairs"]), shape)


def _turned(op, a, b, cos, sin):  # pyright: ignore
    return op.Sub(op.Mul(a, cos), op.Mul(b, sin)), op.Add(op.Mul(a, sin), op.Mul(b, cos))


class Selection(NamedTuple):
    """Which entries of a tensor's last axis, `length` long, a value holds: their indices, in the value's shape."""

    source: ir.Value
    length: int
    indices: np.ndarray[Any, Any]


def selections(value: ir.Value) -> Iterator[Selection]:
    """What a value selects from the last axis of each tensor that it is only a view or a part of, farthest first."""
    path: list[ir.Node] = []
    source: ir.Value | None = value
    while (node := producer(source, *_STEPS)) is not None:
        path.append(node)
        source = node.inputs[0]
    for start in range(len(path), -1, -1):
        nodes = path[:start][::-1]
        source = nodes[0].inputs[0] if nodes else value
        length = size(source, -1)
        indices = None if length is None else np.arange(length)
        for node, result in zip(nodes, [*(later.inputs[0] for later in nodes[1:]), value], strict=False):
            indices = None if indices is None or result is None else _STEPS[node.op_type](node, indices, result)
        if source is not None and length is not None and indices is not None:
            yield Selection(source, length, indices)


def even_and_odd(a: ir.Value, b: ir.Value) -> Selection | None:
    """The tensor of whose last axis `a` holds the even entries and `b` the odd ones."""
    rights = {id(right.source): right for right in selections(b)}
    for left in selections(a):
        right = rights.get(id(left.source))
        if right is not None and _counts(left, 0) and _counts(right, 1):
            return left
    return None


def _counts(selection: Selection, start: int) -> bool:
    return selection.indices.reshape(-1).tolist() == list(range(start, selection.length, 2))


def _slice(node: ir.Node, indices: np.ndarray[Any, Any], value: ir.Value) -> np.ndarray[Any, Any] | None:
    starts, ends, axes = (integers(entry) for entry in node.inputs[1:4])
    steps = integers(node.inputs[4]) if len(node.inputs) > 4 else [1]
    if not (starts and ends and axes and steps) or len(axes) != 1:
        return None
    axis = _tail_axis(axes[0], value, indices)
    if axis is None:
        return None
    return indices[(slice(None),) * axis + (slice(starts[0], min(ends[0], 2**31), steps[0]),)]


def _squeeze(node: ir.Node, indices: np.ndarray[Any, Any], _value: ir.Value) -> np.ndarray[Any, Any] | None:
    axes = integers(node.inputs[1]) if len(node.inputs) > 1 else None
    axis = _tail_axis(axes[0], node.inputs[0], indices) if axes and len(axes) == 1 else None
    return None if axis is None or indices.shape[axis] != 1 else indices.squeeze(axis)


def _gather(node: ir.Node, indices: np.ndarray[Any, Any], _value: ir.Value) -> np.ndarray[Any, Any] | None:
    position = constant(node.inputs[1])
    axis = _tail_axis(attribute(node, "axis", 0), node.inputs[0], indices)
    return None if axis is None or position is None or position.ndim else indices.take(int(position), axis)


def _split(node: ir.Node, indices: np.ndarray[Any, Any], value: ir.Value) -> np.ndarray[Any, Any] | None:
    axis = _tail_axis(attribute(node, "axis", 0), value, indices)
    if axis is None or any(size(output, axis - indices.ndim) is None for output in node.outputs):
        return None
    lengths = [size(output, axis - indices.ndim) or 0 for output in node.outputs]
    return np.split(indices, np.cumsum(lengths)[:-1], axis)[list(node.outputs).index(value)]


def _reshape(node: ir.Node, indices: np.ndarray[Any, Any], value: ir.Value) -> np.ndarray[Any, Any] | None:
    """A view that splits the traced axes further, and leaves the axes before them alone."""
    source = node.inputs[0]
    assert source is not None
    leading = (rank(source) or 0) - indices.ndim
    if value.shape is None or leading < 0 or not all(same_dimension(source, value, axis) for axis in range(leading)):
        return None
    tail = [size(value, axis) for axis in range(leading, len(value.shape))]
    if None in tail or int(np.prod(np.array(tail, np.int64))) != indices.size:
        return None
    return indices.reshape([int(length or 0) for length in tail])


_STEPS = {"Slice": _slice, "Squeeze": _squeeze, "Gather": _gather, "Split": _split, "Reshape": _reshape}


def _tail_axis(axis: int, value: ir.Value | None, indices: np.ndarray[Any, Any]) -> int | None:
    """An axis of a value as one of the traced indices; None where it is not one of theirs."""
    dimensions = rank(value)
    if dimensions is None:
        return None
    found = axis % dimensions - (dimensions - indices.ndim)
    return found if found >= 0 else None


WRITES = Pass(
    "strided-writes",
    "stack what is written to every second entry",
    rewriting(StridedWrites),
    after=("tidy",),
    opset=OLDEST,
)
PASS = Pass(
    "rope",
    "rotary position embedding → RotaryEmbedding",
    rewriting(Rotation, ComplexRotation),
    after=("strided-writes",),
    opset=OPSET,
)
