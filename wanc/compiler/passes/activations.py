"""Activations that a model wrote out → Gelu, and SiLU as x · Sigmoid(x), which every engine knows."""

from __future__ import annotations

import math
from functools import partial

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import scalar
from wanc.compiler.passes.rewrite import FLOATS, OPSET, Pass, Rewrite, accept, refuse, rewriting

ROUNDING = 1e-5
GROUPINGS = ("(x·½)·t", "(x·t)·½", "x·(½·t)")


class Gelu(Rewrite):
    """½·x·(1 + t) → Gelu (arXiv 1606.08415), whichever two of the three factors are multiplied first."""

    commutes = True
    dtypes = FLOATS

    def __init__(self, grouping: str) -> None:
        super().__init__()
        self._grouping = grouping

    def grouped(self, op, x, half, factor):  # pyright: ignore
        if self._grouping == "(x·½)·t":
            return op.Mul(op.Mul(x, half), factor)
        return op.Mul(op.Mul(x, factor), half) if self._grouping == "(x·t)·½" else op.Mul(x, op.Mul(half, factor))


class TanhGelu(Gelu):
    """t is tanh(√(2/π)·(x + 0.044715·x³)): the approximation."""

    def pattern(self, op, x, half, one, root, cubic, three):  # pyright: ignore
        inner = op.Mul(op.Add(x, op.Mul(op.Pow(x, three), cubic)), root)
        return self.grouped(op, x, half, op.Add(op.Tanh(inner), one))

    def check(self, context, x, half, one, root, cubic, three) -> MatchResult:  # pyright: ignore
        wanted = {half: 0.5, one: 1.0, root: math.sqrt(2 / math.pi), cubic: 0.044715, three: 3.0}
        return accept() if _are(wanted, x) else refuse("the constants are not those of the GELU")

    def rewrite(self, op, x, **_):  # pyright: ignore
        return op.Gelu(x, approximate="tanh")


class ErfGelu(Gelu):
    """t is erf(x / √2)."""

    def pattern(self, op, x, half, one, root):  # pyright: ignore
        return self.grouped(op, x, half, op.Add(op.Erf(op.Mul(x, root)), one))

    def check(self, context, x, half, one, root) -> MatchResult:  # pyright: ignore
        wanted = {half: 0.5, one: 1.0, root: math.sqrt(0.5)}
        return accept() if _are(wanted, x) else refuse("the constants are not those of the GELU")

    def rewrite(self, op, x, **_):  # pyright: ignore
        return op.Gelu(x, approximate="none")


class Silu(Rewrite):
    """x / (1 + exp(-x)) → x · Sigmoid(x) (arXiv 1702.03118)."""

    commutes = True

    def pattern(self, op, x, one):  # pyright: ignore
        return op.Div(x, op.Add(op.Exp(op.Neg(x)), one))

    def check(self, context, x, one) -> MatchResult:  # pyright: ignore
        return accept() if scalar(one, x) == 1.0 else refuse("the constant is not 1")

    def rewrite(self, op, x, **_):  # pyright: ignore
        return op.Mul(x, op.Sigmoid(x))


def _are(wanted: dict[ir.Value, float], x: ir.Value) -> bool:
    found = {value: scalar(value, x) for value in wanted}
    return all(
        number is not None and math.isclose(number, wanted[value], rel_tol=ROUNDING) for value, number in found.items()
    )


PASS = Pass(
    "activations",
    "GELU and SiLU → Gelu, x · Sigmoid(x)",
    rewriting(*(partial(kind, grouping) for kind in (TanhGelu, ErfGelu) for grouping in GROUPINGS), Silu),
    after=("tidy",),
    opset=OPSET,
)
