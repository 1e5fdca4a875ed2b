"""AdaLN's modulation (arXiv 2212.09748, section 3.2) → the scale and the bias of the LayerNormalization before it.

LayerNorm(x)·(1 + scale) + shift, where scale and shift come from the timestep, is a LayerNormalization whose Scale and
B are computed. They do not depend on x: the step graph takes them as inputs, once they are hoisted.
"""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import attribute, is_filled_with, rank, same_dimension, size
from wanc.compiler.passes.rewrite import FLOATS, OPSET, Pass, Reads, Rewrite, accept, refuse, rewriting


class Modulate(Rewrite):
    """LayerNormalization without scale and bias of its own, times one row, plus another."""

    commutes = True
    reads: ClassVar[Reads] = {"LayerNormalization": ("axis", "epsilon")}
    dtypes = FLOATS

    def pattern(self, op, x, ones, scale, shift):  # pyright: ignore
        return op.Add(op.Mul(op.LayerNormalization(x, ones, _outputs=["normalized"]), scale), shift)

    def check(self, context, x, ones, scale, shift, normalized) -> MatchResult:  # pyright: ignore
        if not is_filled_with(ones, 1.0):
            return refuse("the norm has a scale of its own")
        if attribute(normalized.producer(), "axis", -1) not in (-1, (rank(x) or 0) - 1):
            return refuse("the norm is not over the last axis alone")
        for value, name in ((scale, "scale"), (shift, "shift")):
            if not _is_row_of(value, x):
                return refuse(f"the {name} is not one row of the width of x: there may be one for each token")
        return accept()

    def rewrite(self, op, x, scale, shift, normalized, **_):  # pyright: ignore
        row = op.Constant(value_ints=[-1])
        epsilon = attribute(normalized.producer(), "epsilon", 1e-5)
        return op.LayerNormalization(
            x, op.Reshape(scale, row), op.Reshape(shift, row), axis=-1, epsilon=epsilon, stash_type=1
        )


def _is_row_of(value: ir.Value, x: ir.Value) -> bool:
    dimensions = rank(value)
    if not dimensions or dimensions > (rank(x) or 0) or not same_dimension(value, x, -1):
        return False
    return all(size(value, axis) == 1 for axis in range(dimensions - 1))


PASS = Pass(
    "modulate",
    "AdaLN's scale and shift → those of the LayerNormalization",
    rewriting(Modulate),
    after=("norms",),
    opset=OPSET,
)
