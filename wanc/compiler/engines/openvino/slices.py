"""Lowering of a quantised feed-forward network to slices of its middle, each of which stays in the processor's cache.

Linear, GELU, Linear is a sum over slices of what is between. OpenVINO's INT8 product takes longer over rows that are
long: for 2,240 tokens of the 1.3B shape, 90 ms over 8,960 columns, and 76 over twice 4,480 of them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.graphs.values import attribute, rank, scale_per_row, size
from wanc.compiler.passes.rewrite import Pass, Reads, Rewrite, accept, refuse, rewriting, skip

GELU_OPSET = 20
"""The first version of the standard operators that has Gelu."""
WIDEST = 4608
"""Columns of a slice at most: half of the 1.3B shape's 8,960 and a third of the 14B's 13,824 fit."""
BLOCK = 64
"""Slices are of whole blocks of so many columns, as the kernels go."""
SLICE = ".slice."
"""In the name of a slice's product, before its number."""


class SlicedFeedForward(Rewrite):
    """Linear, Gelu, rounding, Linear → the sum of the same over slices."""

    reads: ClassVar[Reads] = {"DequantizeLinear": ("axis", "block_size"), "Gelu": ("approximate",)}

    def pattern(self, op, x, codes, scales, bias, step, zero, codes2, scales2, bias2):  # pyright: ignore
        weight = op.Transpose(op.DequantizeLinear(codes, scales, _outputs=["dequantized"]), perm=[1, 0])
        inner = op.Gelu(op.Add(op.MatMul(x, weight, _outputs=["product"]), bias), _outputs=["activated"])
        inner = op.DequantizeLinear(op.QuantizeLinear(inner, step, zero), step, zero)
        weight = op.Transpose(op.DequantizeLinear(codes2, scales2, _outputs=["dequantized2"]), perm=[1, 0])
        return op.Add(op.MatMul(inner, weight, _outputs=["product2"]), bias2)

    def check(self, context, step, bias, bias2, dequantized, dequantized2, **_) -> MatchResult:  # pyright: ignore
        weights = [value.producer() for value in (dequantized, dequantized2)]
        columns = size(weights[1].inputs[0], 1) or 0
        if columns <= WIDEST:
            return skip()
        if not all(scale_per_row(node) and node.inputs[0].dtype == ir.DataType.INT8 for node in weights):
            return refuse("the weights' codes are not int8 with a scale for each row")
        if rank(step) != 0:
            return refuse("what is between is not rounded with one scale")
        if [rank(bias), rank(bias2)] != [1, 1]:
            return refuse("what is added to the products are not two rows")
        self._count = slices(columns)
        return accept() if self._count > 1 else refuse(f"{columns} columns have no even slices")

    def rewrite(self, op, x, codes, scales, bias, step, zero, codes2, scales2, bias2, **matched):  # pyright: ignore
        width = (size(codes2, 1) or 0) // self._count
        approximate = attribute(matched["activated"].producer(), "approximate", "none")
        # Each slice adds a part: a kernel that adds nothing narrows what it gives, where a graph has bfloat16.
        part = op.Mul(bias2, op.Constant(value_float=1 / self._count))

        def linear(value: Any, name: str, codes: Any, scales: Any, bias: Any) -> Any:
            weight = op.Transpose(op.DequantizeLinear(codes, scales, axis=0), perm=[1, 0])
            product = op.MatMul(value, weight)
            product.producer().name = name
            return op.Add(product, bias)

        total = None
        for index in range(self._count):
            ends = [op.Constant(value_ints=[place * width]) for place in (index, index + 1)]
            of_rows, of_columns = ((*ends, op.Constant(value_ints=[axis])) for axis in (0, 1))
            names = [f"{matched[each].producer().name}{SLICE}{index}" for each in ("product", "product2")]
            rows = (op.Slice(each, *of_rows) for each in (codes, scales, bias))
            inner = op.Gelu(linear(x, names[0], *rows), approximate=approximate)
            inner = op.DequantizeLinear(op.QuantizeLinear(inner, step, zero), step, zero)
            result = linear(inner, names[1], op.Slice(codes2, *of_columns), scales2, part)
            total = result if total is None else op.Add(total, result)
        return total


def slices(columns: int) -> int:
    """The fewest slices of equal blocks that are no wider than `WIDEST`; 1 where there are none."""
    blocks, rest = divmod(columns, BLOCK)
    counts = (count for count in range(1, blocks + 1) if blocks % count == 0)
    return 1 if rest else next((count for count in counts if columns // count <= WIDEST), 1)


def slice_number(product: str) -> int:
    """Which slice a product of this name is of; 0 where it is whole."""
    return int(product.rpartition(SLICE)[2]) if SLICE in product else 0


SLICES = Pass(
    "slices",
    "wide feed-forward networks in int8 → sums over slices",
    rewriting(SlicedFeedForward),
    opset=GELU_OPSET,
)
