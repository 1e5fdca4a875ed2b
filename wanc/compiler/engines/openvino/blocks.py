"""Blocks of codes as OpenVINO reads them: all of one size.

A row of 160 codes in blocks of 128 has a block of 32 at its end. In blocks of 32, of which the first four have the same
scale, it is the same row, and one that the plugin reads.

It takes weights of codes, int4 or int8, as they are: with the product they are one FullyConnected. Measured at 2,240
rows of 1,536 × 8,960 (2 threads) that takes 1.04 to 1.08 times as long as float32, and in bfloat16 0.58 to 0.63 of it,
where floats take 0.55; at a single row less than half. Twelve such Linears have 0.28 GB in int4 and 0.43 GB in int8,
and 1.38 GB in float32.
"""

from __future__ import annotations

from math import gcd
from typing import ClassVar

from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import attribute, rank, size
from wanc.compiler.passes.rewrite import Pass, Reads, Rewrite, accept, refuse, rewriting, skip

BLOCKS_OPSET = 21
"""The first version of the standard operators that has blocks of codes."""
SMALLEST = 4  # columns of a block: below, the plugin widens the codes to floats when it loads them


class EvenBlocks(Rewrite):
    """A last block that is shorter → smaller blocks, of which several have one scale."""

    keeps_shared_nodes = True
    reads: ClassVar[Reads] = {"DequantizeLinear": ("axis", "block_size")}

    def pattern(self, op, codes, scales):  # pyright: ignore
        return op.DequantizeLinear(codes, scales, _outputs=["weight"])

    def check(self, context, codes, scales, weight) -> MatchResult:  # pyright: ignore
        node, columns = weight.producer(), size(codes, 1)
        axis, self._block = attribute(node, "axis", 1), attribute(node, "block_size", 0)
        if not self._block:
            return skip()
        if axis not in (1, -1) or rank(codes) != 2 or not columns:
            return refuse("the blocks do not lie along the rows of a matrix")
        if columns % self._block == 0:
            return skip()
        self._columns, self._finer = columns, gcd(columns, self._block)
        return accept() if self._finer >= SMALLEST else refuse(f"rows of {columns} have no even blocks")

    def rewrite(self, op, codes, scales, weight):  # pyright: ignore
        times = self._block // self._finer
        order = [place // times for place in range(self._columns // self._finer)]
        finer = op.Gather(scales, op.Constant(value_ints=order), axis=1)
        return op.DequantizeLinear(codes, finer, axis=1, block_size=self._finer)


EVEN = Pass(
    "even-blocks",
    "blocks of codes with a shorter one at the end → smaller blocks, all of one size",
    rewriting(EvenBlocks),
    opset=BLOCKS_OPSET,
)
