"""Norms that a model wrote out → RMSNormalization and LayerNormalization."""

from __future__ import annotations

import math
from typing import ClassVar

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import attribute, integers, rank, same_dimension, scalar, size
from wanc.compiler.passes.rewrite import FLOATS, OPSET, Pass, Reads, Rewrite, accept, refuse, rewriting

# Between a square root that a model stores in float32 and the real one.
ROUNDING = 1e-6
# Without axes, which is where `noop_with_empty_axes` says something, nothing here is a norm.
REDUCED: Reads = {"ReduceMean": ("keepdims", "noop_with_empty_axes"), "ReduceL2": ("keepdims", "noop_with_empty_axes")}
# A length from which on another bound than ε would show.
TINY = 1e-6


class RootMeanSquare(Rewrite):
    """x / sqrt(mean(x²) + ε) · scale over the last axis (arXiv 1910.07467), as T5 and Wan's attention write it."""

    commutes = True
    reads: ClassVar[Reads] = REDUCED
    dtypes = FLOATS

    def pattern(self, op, x, scale, epsilon, axes):  # pyright: ignore
        mean = op.ReduceMean(op.Pow(x, 2.0), axes, _outputs=["mean"])
        normalized = op.Mul(x, op.Reciprocal(op.Sqrt(op.Add(mean, epsilon))))
        return op.Mul(normalized, scale)

    def check(self, context, x, scale, epsilon, axes, mean) -> MatchResult:  # pyright: ignore
        if not _is_last_axis(x, integers(axes)) or not attribute(mean.producer(), "keepdims", 1):
            return refuse("the mean is not over the last axis alone")
        if scalar(epsilon, x) is None:
            return refuse("epsilon is not a constant")
        if not _is_row_of(scale, x):
            return refuse("the scale is not one row of the width of x")
        return accept()

    def rewrite(self, op, x, scale, epsilon, **_):  # pyright: ignore
        return op.RMSNormalization(x, scale, axis=-1, epsilon=scalar(epsilon, x), stash_type=1)


class ChannelNorm(Rewrite):
    """x / max(‖x‖, ε) · √C · scale over axis 1, as Wan's VAE writes it → RMSNormalization between two transposes.

    √C / ‖x‖ is 1 / √mean(x²). Adding ε² / C to the mean in place of the maximum changes what is below 1e-12, and
    leaves zeros zero.
    """

    commutes = True
    reads: ClassVar[Reads] = REDUCED
    dtypes = FLOATS

    def pattern(self, op, x, scale, factor, axes):  # pyright: ignore
        length = op.Clip(op.ReduceL2(x, axes, _outputs=["norm"]), _allow_other_inputs=True, _outputs=["clipped"])
        return op.Mul(op.Mul(op.Div(x, length), factor), scale)

    def check(self, context, x, scale, factor, axes, norm, clipped) -> MatchResult:  # pyright: ignore
        channels, bounds = size(x, 1), clipped.producer().inputs[1:]
        least = scalar(bounds[0]) if bounds else None
        if integers(axes) != [1] or not attribute(norm.producer(), "keepdims", 1):
            return refuse("the norm is not over axis 1 alone")
        if channels is None or not math.isclose(scalar(factor, x) or 0.0, math.sqrt(channels), rel_tol=ROUNDING):
            return refuse("the factor is not the square root of the number of channels")
        if least is None or not 0 < least <= TINY or (len(bounds) > 1 and bounds[1] is not None):
            return refuse("the norm is not bounded from below alone, by next to nothing")
        if (dimensions := rank(scale)) is None or size(scale, 1 - (rank(x) or 0)) != channels:
            return refuse("the scale has not one entry per channel")
        others = (axis for axis in range(dimensions) if axis - dimensions != 1 - (rank(x) or 0))
        if dimensions > (rank(x) or 0) or any(size(scale, axis) != 1 for axis in others):
            return refuse("the scale has more than one entry per channel")
        self._epsilon = least**2 / channels
        return accept()

    def rewrite(self, op, x, scale, **_):  # pyright: ignore
        dimensions = rank(x) or 0
        last = [0, *range(2, dimensions), 1]
        rows = op.Reshape(scale, op.Constant(value_ints=[-1]))
        normalized = op.RMSNormalization(op.Transpose(x, perm=last), rows, axis=-1, epsilon=self._epsilon, stash_type=1)
        return op.Transpose(normalized, perm=[0, dimensions - 1, *range(1, dimensions - 1)])


class MeanAndVariance(Rewrite):
    """(x - mean) / sqrt(variance + ε) · scale + bias over the last axis (arXiv 1607.06450) → LayerNormalization."""

    commutes = True
    reads: ClassVar[Reads] = REDUCED
    dtypes = FLOATS

    def pattern(self, op, x, scale, bias, epsilon, axes):  # pyright: ignore
        centred = op.Sub(x, op.ReduceMean(x, axes, _outputs=["mean"]))
        variance = op.ReduceMean(op.Pow(centred, 2.0), axes, _outputs=["variance"])
        normalized = op.Div(centred, op.Sqrt(op.Add(variance, epsilon)))
        return op.Add(op.Mul(normalized, scale), bias)

    def check(self, context, x, scale, bias, epsilon, axes, mean, variance) -> MatchResult:  # pyright: ignore
        keeps = all(attribute(value.producer(), "keepdims", 1) for value in (mean, variance))
        if not _is_last_axis(x, integers(axes)) or not keeps:
            return refuse("mean and variance are not over the last axis alone")
        if scalar(epsilon, x) is None:
            return refuse("epsilon is not a constant")
        if not _is_row_of(scale, x) or not _is_row_of(bias, x):
            return refuse("scale or bias is not one row of the width of x")
        return accept()

    def rewrite(self, op, x, scale, bias, epsilon, **_):  # pyright: ignore
        return op.LayerNormalization(x, scale, bias, axis=-1, epsilon=scalar(epsilon, x), stash_type=1)


def _is_row_of(value: ir.Value, x: ir.Value) -> bool:
    return rank(value) == 1 and same_dimension(value, x, 0, (rank(x) or 0) - 1)


def _is_last_axis(x: ir.Value, axes: list[int] | None) -> bool:
    dimensions = rank(x)
    return dimensions is not None and axes is not None and [axis % dimensions for axis in axes] == [dimensions - 1]


PASS = Pass(
    "norms",
    "root-mean-square, channel and layer norms → RMSNormalization, LayerNormalization",
    rewriting(RootMeanSquare, ChannelNorm, MeanAndVariance),
    after=("tidy",),
    opset=OPSET,
)
