"""Lowering to ONNX Runtime's own operators, where one was measured to be faster than the standard operator's kernel.

Measured on a CPU (`bench/`): MultiHeadAttention has a tiled kernel that never holds the scores, but not for masked
attention; FastGelu adds the bias on its way; QuickGelu is SiLU in one pass. RMSNormalization, RotaryEmbedding and
LayerNormalization of opset 23 have kernels as fast as the older ones, and stay. The fused skip and bias norms were
slower, and are not used. Convolutions over time are sums of convolutions of frames, which have better kernels.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.passes.rewrite import Pass, Rewrite, accept, rewriting, skip
from wanc.compiler.passes.values import attribute, rank, same_dimension, size

DOMAIN = "com.microsoft"
FRAMES_FIRST = [2, 1, 0, 3, 4]


class TiledAttention(Rewrite):
    """Attention without a mask on [batch, sequence, heads * size] → MultiHeadAttention."""

    def pattern(self, op, q, k, v):  # pyright: ignore
        return op.Attention(q, k, v, _outputs=["attended"])

    def check(self, context, q, k, v, attended) -> MatchResult:  # pyright: ignore
        node = attended.producer()
        heads = attribute(node, "q_num_heads"), attribute(node, "kv_num_heads")
        plain = not any(attribute(node, name) for name in ("is_causal", "softcap", "softmax_precision"))
        has_kernel = q.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16)
        return accept() if heads[0] and heads[0] == heads[1] and rank(q) == 3 and plain and has_kernel else skip()

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
        return accept() if wide else skip()

    def rewrite(self, op, x, bias):  # pyright: ignore
        return op.FastGelu(x, bias, _domain=DOMAIN)


class Silu(Rewrite):
    """x · Sigmoid(x) → QuickGelu with α = 1."""

    commutes = True

    def pattern(self, op, x):  # pyright: ignore
        return op.Mul(x, op.Sigmoid(x))

    def rewrite(self, op, x):  # pyright: ignore
        return op.QuickGelu(x, alpha=1.0, _domain=DOMAIN)


class FrameConvolutions(Rewrite):
    """Conv on [1, channels, frames, height, width] → for each tap of its kernel in time a Conv on frames, summed."""

    def pattern(self, op, x, weight):  # pyright: ignore
        return op.Conv(x, weight, _allow_other_inputs=True, _outputs=["result"])

    def check(self, context, x, weight, result) -> MatchResult:  # pyright: ignore
        node, taps, frames = result.producer(), size(weight, 2), size(x, 2)
        if (
            rank(x) != 5
            or size(x, 0) != 1
            or not taps
            or not frames
            or attribute(node, "auto_pad", "NOTSET") != "NOTSET"
        ):
            return skip()
        pads = attribute(node, "pads", [0] * 6)
        steps = [attribute(node, name, [1, 1, 1])[0] for name in ("strides", "dilations")]
        self._taps, self._frames = taps, frames - taps + 1
        return accept() if taps > 1 and not pads[0] and not pads[3] and steps == [1, 1] else skip()

    def rewrite(self, op, x, weight, result):  # pyright: ignore
        node, time = result.producer(), op.Constant(value_ints=[2])
        pads = attribute(node, "pads", [0] * 6)
        flat = {name: attribute(node, name, [1, 1, 1])[1:] for name in ("strides", "dilations")}
        flat |= {"pads": [*pads[1:3], *pads[4:6]], "group": attribute(node, "group", 1)}
        frames = op.Squeeze(op.Transpose(x, perm=FRAMES_FIRST), time)
        total = None
        for tap in range(self._taps):
            bounds = [op.Constant(value_ints=[bound]) for bound in (tap, tap + self._frames, 0)]
            kernel = op.Gather(weight, op.Constant(value_int=tap), axis=2)
            bias = node.inputs[2:3] if tap == 0 else []
            part = op.Conv(op.Slice(frames, *bounds), kernel, *bias, **flat)
            total = part if total is None else op.Add(part, total)
        return op.Transpose(op.Unsqueeze(total, time), perm=FRAMES_FIRST)


KERNELS = Pass("kernels", "operators of com.microsoft", rewriting(TiledAttention, BiasGelu, Silu, FrameConvolutions))
