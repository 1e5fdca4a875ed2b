"""Data movement: transposes, casts, reshapes and copies that cancel, and shapes that need not be computed."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult
from onnxscript.rewriter.rules import common

from wanc.compiler.graphs.values import attribute, constant, producer, rank, same_dimension
from wanc.compiler.passes.fold import remove_unused
from wanc.compiler.passes.rewrite import (
    NOTHING,
    OLDEST,
    Pass,
    PassOutcome,
    Reads,
    Rewrite,
    accept,
    apply_of_library,
    refuse,
    rewriting,
    skip,
)

# onnxscript's: each is one algebraic identity.
IDENTITIES = dict.fromkeys(
    (
        common.no_op_transpose_rule,
        common.transpose_transpose_rule,
        common.no_op_expand_rule,
        common.unsqueeze_unsqueeze_rule,
        common.mul_by_1_rule,
        common.div_by_1_rule,
        common.add_0_rule,
        common.sub_0_rule,
    ),
    NOTHING,
)
# Those that leave it to the operator behind an Expand to stretch its inputs.
STRETCHES = dict.fromkeys(common.expand_before_binary_op_rules.rules, NOTHING)
MOST_ROUNDS = 8
# A float of the second kind holds every value of the first: there and back changes nothing.
WIDER = {
    ir.DataType.FLOAT16: (ir.DataType.FLOAT, ir.DataType.DOUBLE),
    ir.DataType.BFLOAT16: (ir.DataType.FLOAT, ir.DataType.DOUBLE),
    ir.DataType.FLOAT: (ir.DataType.DOUBLE,),
}


def stretches_alike(context: Any) -> MatchResult:
    """Whether an operator has as many axes without the Expand in front of one input: it may add some, of 1.

    PRelu never stretches what it is given.
    """
    ranks = [known for value in context.root.inputs if (known := _rank_without_expand(value)) is not None]
    if context.root.op_type == "PRelu" or len(ranks) < len(context.root.inputs):
        return skip()
    return accept() if max(ranks) == rank(context.root.outputs[0]) else refuse("the result would lose axes")


def _rank_without_expand(value: ir.Value | None) -> int | None:
    node = producer(value, "Expand")
    return rank(node.inputs[0] if node else value)


class ThereAndBack(Rewrite):
    """Cast(Cast(x)) → x, where the type between them is wider than x's own."""

    reads: ClassVar[Reads] = {"Cast": ("to",)}

    def pattern(self, op, x):  # pyright: ignore
        return op.Cast(op.Cast(x, _outputs=["wide"]), _outputs=["back"])

    def check(self, context, x, wide, back) -> MatchResult:  # pyright: ignore
        if x.dtype is None or back.producer().attributes["to"].as_int() != x.dtype.value:
            return refuse("the second cast does not go back to the first one's type")
        if wide.producer().attributes["to"].as_int() not in [dtype.value for dtype in WIDER.get(x.dtype, ())]:
            return refuse(f"the type between the casts does not hold every {x.dtype.name.lower()}")
        return accept()

    def rewrite(self, op, x, **_):  # pyright: ignore
        return op.Identity(x)


class ReshapeTwice(Rewrite):
    """Reshape(Reshape(x), shape) → Reshape(x, shape), where the sizes that the shape copies are those of x as well."""

    # Of the first one the result alone matters.
    reads: ClassVar[Reads] = {"Reshape": ("allowzero",)}

    def pattern(self, op, x, shape):  # pyright: ignore
        return op.Reshape(op.Reshape(x, _allow_other_inputs=True, _outputs=["between"]), shape, _outputs=["result"])

    def check(self, context, x, shape, between, result) -> MatchResult:  # pyright: ignore
        sizes = constant(shape)
        if sizes is None:
            return refuse("the shape is computed")
        copied = [] if attribute(result.producer(), "allowzero", 0) else np.flatnonzero(sizes == 0)
        if not all(same_dimension(x, between, int(axis)) for axis in copied):
            return refuse("the shape copies a size of the reshape before it")
        return accept()

    def rewrite(self, op, x, shape, result, **_):  # pyright: ignore
        return op.Reshape(x, shape, allowzero=attribute(result.producer(), "allowzero", 0))


class SameShape(Rewrite):
    """Reshape(x) → x, where the shapes are equal."""

    reads: ClassVar[Reads] = {"Reshape": ("allowzero",)}

    def pattern(self, op, x):  # pyright: ignore
        return op.Reshape(x, _allow_other_inputs=True, _outputs=["result"])

    def check(self, context, x, result) -> MatchResult:  # pyright: ignore
        if x.shape is None or result.shape is None or len(x.shape) != len(result.shape):
            return refuse("the shapes differ")
        equal = all(same_dimension(x, result, axis) for axis in range(len(x.shape)))
        return accept() if equal else refuse("the shapes differ")

    def rewrite(self, op, x, **_):  # pyright: ignore
        return op.Identity(x)


class KnownShape(Rewrite):
    """Reshape(x, computed shape) → the same with a constant, where at most one size is neither known nor copied.

    What is neither is found by dividing. That fails where a size that is copied turns out to be 0.
    """

    # The shape in its place copies or divides where it is not known.
    reads: ClassVar[Reads] = {"Reshape": ("allowzero",)}

    def pattern(self, op, x, shape):  # pyright: ignore
        return op.Reshape(x, shape, _outputs=["result"])

    def check(self, context, x, shape, result) -> MatchResult:  # pyright: ignore
        if constant(shape) is not None:
            return refuse("the shape is a constant")
        if result.shape is None or x.shape is None:
            return refuse("the shape of the result is unknown")
        self._sizes = [_target(x, result, axis) for axis in range(len(result.shape))]
        if any(size == 0 and isinstance(result.shape[axis], int) for axis, size in enumerate(self._sizes)):
            return refuse("the result is empty")
        if self._sizes.count(-1) > 1:
            return refuse("more than one size of the result is neither known nor the input's")
        if -1 in self._sizes and 0 in self._sizes:
            return refuse("a size is neither known nor the input's, and another one may be 0")
        return accept()

    def rewrite(self, op, x, **_):  # pyright: ignore
        return op.Reshape(x, op.Constant(value_ints=self._sizes))


def _target(x: ir.Value, result: ir.Value, axis: int) -> int:
    assert x.shape is not None and result.shape is not None
    size = result.shape[axis]
    if isinstance(size, int):
        return size
    return 0 if axis < len(x.shape) and same_dimension(x, result, axis) else -1


def tidy(model: ir.Model) -> PassOutcome:
    """Apply the identities until nothing changes."""
    ours = rewriting(ThereAndBack, ReshapeTwice, SameShape, KnownShape)
    fired = 0
    for _ in range(MOST_ROUNDS):
        found = apply_of_library(IDENTITIES, model) + apply_of_library(STRETCHES, model, stretches_alike)
        found += ours(model).fired
        fired += found
        if not found:
            break
    return PassOutcome(fired + remove_unused(model).fired)


PASS = Pass("tidy", "cancel transposes, casts and reshapes; make shapes constants", tidy, after=("fold",), opset=OLDEST)
