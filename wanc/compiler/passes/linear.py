"""One form for every Linear: MatMul(x, weight) + bias, where the weight is [out, in] behind a Transpose."""

from __future__ import annotations

from typing import ClassVar

from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import attribute, producer, rank
from wanc.compiler.passes.rewrite import OLDEST, Pass, Reads, Rewrite, accept, refuse, rewriting, skip


class FromGemm(Rewrite):
    """Gemm(x, weight, bias, transB=1) → Add(MatMul(x, Transpose(weight)), bias)."""

    reads: ClassVar[Reads] = {"Gemm": ("alpha", "beta", "transA", "transB")}

    def pattern(self, op, x, weight):  # pyright: ignore
        return op.Gemm(x, weight, _allow_other_inputs=True, _outputs=["result"])

    def check(self, context, x, weight, result) -> MatchResult:  # pyright: ignore
        node = result.producer()
        if attribute(node, "transA", 0) or any(attribute(node, name, 1.0) != 1.0 for name in ("alpha", "beta")):
            return refuse("it transposes or scales what it multiplies")
        if rank(weight) != 2:
            return refuse("the rank of the weight is unknown")
        return accept()

    def rewrite(self, op, x, weight, result):  # pyright: ignore
        node = result.producer()
        matrix = op.Transpose(weight, perm=[1, 0]) if attribute(node, "transB", 0) else weight
        product = op.MatMul(x, matrix)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        return product if bias is None else op.Add(product, bias)


class BiasLast(Rewrite):
    """Add(bias, MatMul(x, weight)) → Add(MatMul(x, weight), bias)."""

    def pattern(self, op, x, weight, bias):  # pyright: ignore
        return op.Add(bias, op.MatMul(x, weight))

    def check(self, context, x, weight, bias) -> MatchResult:  # pyright: ignore
        return accept() if rank(bias) == 1 and producer(bias, "MatMul") is None else skip()

    def rewrite(self, op, x, weight, bias):  # pyright: ignore
        return op.Add(op.MatMul(x, weight), bias)


PASS = Pass(
    "linear", "Gemm, and biases in front → MatMul + bias", rewriting(FromGemm, BiasLast), after=("tidy",), opset=OLDEST
)
