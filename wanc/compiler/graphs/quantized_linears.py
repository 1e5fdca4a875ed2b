"""The quantised Linears and convolutions of a canonical graph, as `quantizers` has put them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from wanc.compiler.graphs.convolutions import convolutions
from wanc.compiler.graphs.linears import SUFFIX, linears
from wanc.compiler.graphs.values import producer, sizes_at

CODES = f"{SUFFIX}.codes"
"""What the name of a weight's codes ends with, behind that of its Linear."""
FORMATS = {ir.DataType.INT8: "int8", ir.DataType.UINT8: "uint8", ir.DataType.FLOAT8E4M3FN: "fp8"}
INTEGERS = (ir.DataType.INT8, ir.DataType.UINT8)


@dataclass(frozen=True)
class QuantizedLinear:
    """A product or convolution whose weight is codes; `input` is what is rounded, or what is multiplied as it is."""

    name: str
    product: ir.Node
    input: ir.Value
    codes: ir.Value
    rounds_input: bool

    @property
    def is_integer(self) -> bool:
        """Whether both sides are whole numbers of 8 bits, so that an engine can multiply those."""
        rounded = producer(self.product.inputs[0], "DequantizeLinear")
        sides = (self.codes, rounded.inputs[0] if rounded and self.rounds_input else None)
        return all(side is not None and side.dtype in INTEGERS for side in sides)

    @property
    def numbers(self) -> str:
        """The formats of both sides, such as `int8 × int8`; what is not rounded is a float."""
        rounded = producer(self.product.inputs[0], "DequantizeLinear")
        sides = (rounded.inputs[0] if rounded and self.rounds_input else None, self.codes)
        dtypes = [side.dtype for side in sides if side is not None]
        formats = [FORMATS.get(dtype, "float") for dtype in dtypes if dtype is not None]
        return " × ".join(["float"] * (2 - len(formats)) + formats)

    def flops(self, sizes: Mapping[str, int]) -> int:
        """Of one execution at these sizes; a multiplication and an addition are two."""
        assert self.codes.shape is not None
        rows = _places(self.product, sizes) if self.is_convolution else _rows(self.input, sizes)
        return 2 * prod(self.codes.shape.numpy()) * rows

    @property
    def is_convolution(self) -> bool:
        return self.product.op_type == "Conv"


def quantized_linears(model: ir.Model) -> list[QuantizedLinear]:
    """All of them, convolutions too, in the order of the main graph."""
    found = (_quantized(node) for node in model.graph)
    return [linear for linear in found if linear is not None]


def has_quantized_convolutions(model: ir.Model) -> bool:
    """Whether any convolution of a graph is by codes."""
    return any(linear.is_convolution for linear in quantized_linears(model))


def flops_of_linears(model: ir.Model, sizes: Mapping[str, int]) -> int:
    """Of all Linears of a graph, quantised or not."""
    floats = sum(linear.flops_per_row * _rows(linear.input, sizes) for linear in linears(model))
    return floats + sum(linear.flops(sizes) for linear in quantized_linears(model) if not linear.is_convolution)


def flops_of_convolutions(model: ir.Model, sizes: Mapping[str, int]) -> int:
    """Of all convolutions of a graph by weights of the checkpoint, quantised or not."""
    floats = sum(each.flops_per_row * _places(each.product, sizes) for each in convolutions(model))
    return floats + sum(linear.flops(sizes) for linear in quantized_linears(model) if linear.is_convolution)


def _quantized(node: ir.Node) -> QuantizedLinear | None:
    if (node.domain, node.op_type) not in (("", "MatMul"), ("", "Conv")):
        return None
    turned = producer(node.inputs[1], "Transpose")
    weight = producer(turned.inputs[0] if turned else node.inputs[1], "DequantizeLinear")
    codes = weight.inputs[0] if weight else None
    if codes is None or not codes.is_initializer() or not str(codes.name).endswith(CODES):
        return None
    rounded = producer(node.inputs[0], "DequantizeLinear")
    quantize = producer(rounded.inputs[0], "QuantizeLinear", "DynamicQuantizeLinear") if rounded else None
    value = quantize.inputs[0] if quantize else node.inputs[0]
    assert value is not None
    return QuantizedLinear(str(codes.name).removesuffix(CODES), node, value, codes, quantize is not None)


def _rows(value: ir.Value, sizes: Mapping[str, int]) -> int:
    """How many rows an activation has at these sizes."""
    return prod(_sizes(value, sizes)[:-1])


def _places(convolution: ir.Node, sizes: Mapping[str, int]) -> int:
    """How many places a convolution gives channels of, in all pictures, at these sizes."""
    pictures, _, *places = _sizes(convolution.outputs[0], sizes)
    return pictures * prod(places)


def _sizes(value: ir.Value, sizes: Mapping[str, int]) -> list[int]:
    return [size for size in sizes_at(value, sizes) if size is not None]
