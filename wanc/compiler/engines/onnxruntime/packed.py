"""Lowering of Linears whose weights alone are quantised, for ONNX Runtime: codes stay codes in memory.

As DequantizeLinear and MatMul they would be computed once, when a session opens, and stay in memory as floats; and with
them as codes its optimiser rounds the inputs as well, for an error of 5e-3. MatMulNBits takes the codes, four bits two
in a byte.

Measured with 2 threads: a process with 12 Linears of 13.8 million weights has 0.70 GB in float32, 0.23 GB in int8, of
which 0.2 are the mapped file, and 0.15 GB in int4. The product takes as long as in float32 at 2,240 rows (0.84 to 1.05
of it). At a single row int4 takes 0.7 of it and int8 eight times as long, as all codes are widened for it. Larger
blocks are widened faster: so a row with one scale is divided into the largest that fit.

`accuracy_level` says what the inputs may be rounded to. At 4, int8, the product takes 0.4 of the time, but then it is
no longer the weights alone that are quantised: the error is 7e-3 in place of 3e-7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import onnx_ir as ir
from onnxscript.rewriter.pattern import MatchResult

from wanc.compiler.engines.onnxruntime.int8 import CODES_OPSET
from wanc.compiler.engines.onnxruntime.kernels import DOMAIN
from wanc.compiler.graphs.values import OWN_DOMAIN, attribute, constant, rank, size
from wanc.compiler.passes.rewrite import Pass, Reads, Rewrite, accept, refuse, rewriting
from wanc.compiler.weights.layout import pack

BITS: Mapping[ir.DataType | None, int] = {ir.DataType.INT8: 8, ir.DataType.INT4: 4}
SMALLEST, LARGEST = 16, 256  # columns of a block: what the kernel takes, and where larger ones gain no more
FLOAT32 = 1  # by the kernel's `accuracy_level`: inputs are multiplied as they are


class PackedProduct(Rewrite):
    """MatMul of an input and a weight of codes → MatMulNBits."""

    keeps_shared_nodes = True
    reads: ClassVar[Reads] = {"DequantizeLinear": ("axis", "block_size")}

    def pattern(self, op, x, codes, scales):  # pyright: ignore
        weight = op.DequantizeLinear(codes, scales, _outputs=["weight"])
        return op.MatMul(x, op.Transpose(weight, perm=[1, 0]))

    def check(self, context, x, codes, scales, weight) -> MatchResult:  # pyright: ignore
        self._rows, self._columns = size(codes, 0) or 0, size(codes, 1) or 0
        if not (rank(codes) == 2 and self._rows and self._columns and x.dtype == ir.DataType.FLOAT):
            return refuse("the kernel takes a float32 input and a matrix of known size")
        if codes.dtype not in BITS:
            return refuse("the kernel's codes are int8 or int4")
        self._per_row, self._block = _blocks(weight.producer(), self._columns)
        if not self._block:
            return refuse("the kernel has no such blocks of codes with one scale")
        if not (_is_for_products_alone(codes, weight) if codes.is_initializer() else constant(codes) is not None):
            return refuse("the codes are no weight that is there for such products alone")
        return accept()

    def rewrite(self, op, x, codes, scales, weight):  # pyright: ignore
        bits = BITS[codes.dtype]
        if codes.is_initializer():  # carried out where the weights are written
            packed = op.Pack(codes, bits=bits, block_size=self._block, _domain=OWN_DOMAIN)
        else:
            numbers = constant(codes)
            assert numbers is not None, "`check` has looked"
            packed = op.Constant(value=ir.tensor(pack(numbers, bits, self._block)))
        if self._per_row:
            first = op.Constant(value_ints=[0] * -(-self._columns // self._block))
            scales = op.Gather(op.Reshape(scales, op.Constant(value_ints=[self._rows, 1])), first, axis=1)
        sizes = {"N": self._rows, "K": self._columns, "bits": bits, "block_size": self._block}
        return op.MatMulNBits(x, packed, scales, accuracy_level=FLOAT32, _domain=DOMAIN, **sizes)


def _is_for_products_alone(codes: ir.Value, weight: ir.Value) -> bool:
    """Whether every use of a weight's codes is a product that this rule rewrites, or has rewritten, in one graph.

    Where something else uses them as well they stay as they are, and cannot be packed.
    """
    dequantize = weight.producer()
    assert dequantize is not None
    others = [use.node for use in codes.uses() if use.node is not dequantize and use.node.domain != OWN_DOMAIN]
    turned = [use.node for use in weight.uses()]
    products = [use for node in turned for use in node.outputs[0].uses()]
    values = (codes, weight, *(node.outputs[0] for node in turned))
    nodes = (*turned, *(use.node for use in products))
    return (
        not others
        and not codes.is_graph_input()
        and not any(value.is_graph_output() for value in values)
        and all(node.graph is codes.graph for node in (*nodes, dequantize))
        and all((node.domain, node.op_type) == ("", "Transpose") for node in turned)
        and all(list(attribute(node, "perm", ())) == [1, 0] for node in turned)
        and all((use.node.domain, use.node.op_type, use.idx) == ("", "MatMul", 1) for use in products)
        and all(_is_float(use.node.inputs[0]) for use in products)
    )


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def _blocks(node: ir.Node, columns: int) -> tuple[bool, int]:
    """Whether a DequantizeLinear has one scale for each row, and the columns of a block; 0 of what has no kernel."""
    axis, block, dimensions = attribute(node, "axis", 1), attribute(node, "block_size", 0), rank(node.inputs[1])
    if (axis, block, dimensions) == (0, 0, 1):
        return True, max(SMALLEST, min(LARGEST, columns & -columns))
    blocked = axis in (1, -1) and dimensions == 2 and block >= SMALLEST and block & (block - 1) == 0
    return False, block if blocked else 0


PACKED = Pass(
    "packed",
    "products with weights of int8 or int4 alone → MatMulNBits",
    rewriting(PackedProduct),
    after=("integers",),
    opset=CODES_OPSET,
)
