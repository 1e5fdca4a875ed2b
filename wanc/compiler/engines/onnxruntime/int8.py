"""Lowering of quantised Linears for ONNX Runtime: the integer kernel itself, in place of Q/DQ around a float product.

Its optimiser makes such kernels of Q/DQ only where the pattern is to its liking, and says nothing where it is not. The
kernel multiplies uint8 by int8: with VNNI that is 3.5 times as fast as float32, and int8 by int8 is ten times slower
than that. So an input's int8 codes without a zero point become uint8 codes with 128 for theirs: the same numbers.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.engines.onnxruntime.kernels import DOMAIN
from wanc.compiler.graphs.values import producer, rank, scalar, scale_per_row, size
from wanc.compiler.passes.fold import share
from wanc.compiler.passes.rewrite import ANY, Pass, Reads, Rewrite, accept, refuse, rewriting, skip

CODES_OPSET = 13
"""The first version of the standard operators in which codes have a scale for each row."""
MIDDLE = 128
NO_INT8 = "the weight's codes are not int8 with a scale for each row"


class IntegerProduct(Rewrite):
    """MatMul of an input and a weight that are both rounded to int8 → MatMulIntegerToFloat."""

    keeps_shared_nodes = True  # Linears of one input share its Q/DQ
    reads: ClassVar[Reads] = {"DequantizeLinear": ("axis", "block_size")}

    def pattern(self, op, x, scale, zero, codes, scales):  # pyright: ignore
        rounded = op.DequantizeLinear(op.QuantizeLinear(x, scale, zero), scale, zero)
        weight = op.DequantizeLinear(codes, scales, _outputs=["weight"])
        return op.MatMul(rounded, op.Transpose(weight, perm=[1, 0]))

    def check(self, context, x, scale, zero, codes, scales, weight) -> MatchResult:  # pyright: ignore
        if scalar(zero) != 0 or zero.dtype != ir.DataType.INT8 or size(scale, 0) not in (None, 1):
            return refuse("the input is not rounded to int8 with one scale and no zero point")
        return accept() if _int8_rows(codes, weight.producer()) else refuse(NO_INT8)

    def rewrite(self, op, x, scale, zero, codes, scales, weight):  # pyright: ignore
        middle = op.Constant(value=ir.tensor(np.array(MIDDLE, np.uint8)))
        shifted = op.QuantizeLinear(x, scale, middle)
        columns = op.Transpose(codes, perm=[1, 0])
        return op.MatMulIntegerToFloat(shifted, columns, scale, scales, middle, _domain=DOMAIN)


class DynamicProduct(Rewrite):
    """The same where each execution finds the range of the input anew, whose codes are uint8 by themselves.

    DynamicQuantizeMatMul, which rounds its input itself, was no faster, and Linears of one input share its codes.
    """

    keeps_shared_nodes = True
    reads: ClassVar[Reads] = {"DequantizeLinear": ("axis", "block_size")}

    def pattern(self, op, rounded, scale, zero, codes, scales):  # pyright: ignore
        weight = op.DequantizeLinear(codes, scales, _outputs=["weight"])
        return op.MatMul(op.DequantizeLinear(rounded, scale, zero), op.Transpose(weight, perm=[1, 0]))

    def check(self, context, rounded, scale, zero, codes, scales, weight) -> MatchResult:  # pyright: ignore
        if producer(rounded, "DynamicQuantizeLinear") is None:
            return skip()  # the other rule's
        return accept() if _int8_rows(codes, weight.producer()) else refuse(NO_INT8)

    def rewrite(self, op, rounded, scale, zero, codes, scales, weight):  # pyright: ignore
        columns = op.Transpose(codes, perm=[1, 0])
        return op.MatMulIntegerToFloat(rounded, columns, scale, scales, zero, _domain=DOMAIN)


class WithBias(Rewrite):
    """The bias behind it is the kernel's own."""

    def pattern(self, op, a, b, a_scale, b_scale, a_zero, bias):  # pyright: ignore
        product = op.MatMulIntegerToFloat(a, b, a_scale, b_scale, a_zero, _domain=DOMAIN)
        return op.Add(product, bias)

    def check(self, context, b, bias, **_) -> MatchResult:  # pyright: ignore
        is_row = rank(bias) == 1 and size(bias, 0) == size(b, 1) is not None
        return accept() if is_row else refuse("what is added to the product is not one row as wide")

    def rewrite(self, op, a, b, a_scale, b_scale, a_zero, bias):  # pyright: ignore
        return op.MatMulIntegerToFloat(a, b, a_scale, b_scale, a_zero, None, bias, _domain=DOMAIN)


def _int8_rows(codes: ir.Value, dequantize: ir.Node) -> bool:
    return codes.dtype == ir.DataType.INT8 and scale_per_row(dequantize)


INTEGERS = Pass(
    "integers",
    "products of rounded inputs and weights → MatMulIntegerToFloat",
    rewriting(IntegerProduct, DynamicProduct, WithBias),
    opset=CODES_OPSET,
)
SHARED_CODES = Pass(
    "shared-codes",
    "compute once what is computed twice, such as codes that several Linears take",
    share,
    after=("integers",),
    opset=ANY,
)
