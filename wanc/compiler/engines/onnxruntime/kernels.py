"""Lowering to ONNX Runtime's own operators, where one was measured to be faster than the standard operator's kernel.

Measured on a CPU (`bench/`): MultiHeadAttention has a tiled kernel that never holds the scores, but not for masked
attention; FastGelu adds the bias on its way; QuickGelu is SiLU in one pass. RMSNormalization, RotaryEmbedding and
LayerNormalization of opset 23 have kernels as fast as the older ones, and stay. The fused skip and bias norms were
slower, and are not used.
"""

from __future__ import annotations

from typing import ClassVar

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import attention_heads, attribute, rank, same_dimension
from wanc.compiler.passes.rewrite import ANY, Pass, Reads, Rewrite, accept, refuse, rewriting

DOMAIN = "com.microsoft"


class TiledAttention(Rewrite):
    """Attention without a mask on [batch, sequence, heads * size] → MultiHeadAttention."""

    reads: ClassVar[Reads] = {"Attention": ("kv_num_heads", "q_num_heads", "scale")}

    def pattern(self, op, q, k, v):  # pyright: ignore
        return op.Attention(q, k, v, _allow_other_inputs=True, _outputs=["attended"])

    def check(self, context, q, k, v, attended) -> MatchResult:  # pyright: ignore
        if q.dtype not in (ir.DataType.FLOAT, ir.DataType.FLOAT16):
            return refuse("the tiled kernel takes float32 and float16")
        return accept() if attention_heads(attended.producer()) else refuse("the attention does more, or on other axes")

    def rewrite(self, op, q, k, v, attended):  # pyright: ignore
        node = attended.producer()
        scale = {"scale": attribute(node, "scale")} if attribute(node, "scale") else {}
        return op.MultiHeadAttention(q, k, v, num_heads=attribute(node, "q_num_heads"), _domain=DOMAIN, **scale)


class BiasGelu(Rewrite):
    """Gelu(x + bias), approximated → FastGelu."""

    def pattern(self, op, x, bias):  # pyright: ignore
        return op.Gelu(op.Add(x, bias), approximate="tanh")

    def check(self, context, x, bias) -> MatchResult:  # pyright: ignore
        wide = rank(bias) == 1 and rank(x) not in (None, 1) and same_dimension(x, bias, -1)
        return accept() if wide else refuse("what is added is not one row as wide as the input")

    def rewrite(self, op, x, bias):  # pyright: ignore
        return op.FastGelu(x, bias, _domain=DOMAIN)


class SiluKernel(Rewrite):
    """x · Sigmoid(x) → QuickGelu with α = 1."""

    commutes = True

    def pattern(self, op, x):  # pyright: ignore
        return op.Mul(x, op.Sigmoid(x))

    def rewrite(self, op, x):  # pyright: ignore
        return op.QuickGelu(x, alpha=1.0, _domain=DOMAIN)


KERNELS = Pass(
    "kernels",
    "plain attention, GELU with its bias, SiLU → kernels of com.microsoft",
    rewriting(TiledAttention, BiasGelu, SiluKernel),
    opset=ANY,
)
