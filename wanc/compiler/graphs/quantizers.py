"""Q/DQ in the canonical graph: what quantisation decided, in standard ONNX, for every engine to make kernels of.

A weight becomes its codes, int8, int4 or fp8 [out, in] as the checkpoint lays it out, a convolution's [out, channels,
*kernel], behind a DequantizeLinear: per row, or in blocks of columns. An activation passes a QuantizeLinear and a
DequantizeLinear with one scale and no zero point; where its range is found anew by each execution, a
DynamicQuantizeLinear. Linears that share an input at one scale share its pair, so that they can still be merged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from wanc.calibration.schemes import InputFormat
from wanc.compiler.graphs.convolutions import linears_and_convolutions
from wanc.compiler.graphs.linears import Linear

CODES: Mapping[InputFormat, ir.DataType] = {
    "int8": ir.DataType.INT8,
    "uint8": ir.DataType.UINT8,
    "fp8": ir.DataType.FLOAT8E4M3FN,
}


@dataclass(frozen=True)
class StoredDecision:
    """How one Linear is computed.

    `codes` is INT8, INT4 or FLOAT8E4M3FN, shaped as the weight; `scales` is float32 [out], or [out, groups] of `group`
    columns each. `inputs` is the format that the input is rounded to, None for none, and `activation_scale` what its
    code of 1 stands for, None for uint8. `divisors` float32 [in] are what the input is divided by first; None where
    nothing is, or where that was folded into what computes it.
    """

    codes: ir.TensorProtocol
    scales: ir.TensorProtocol
    group: int | None = None
    inputs: InputFormat | None = None
    activation_scale: float | None = None
    divisors: ir.TensorProtocol | None = None


def insert_quantizers(model: ir.Model, quantized: Mapping[str, StoredDecision]) -> int:
    """Quantise Linears and convolutions, by the names that these have, in place. Returns how many products that were.

    Their nodes are called as they are, which an engine's own report then shows.
    Raises KeyError where a name is that of no Linear: a decision that is not carried out must not pass unnoticed.
    """
    found = linears_and_convolutions(model)
    if missing := quantized.keys() - {linear.name for linear in found}:
        raise KeyError(min(missing))
    pairs: dict[tuple[ir.Value, float | None, ir.TensorProtocol | None], ir.Value] = {}
    weights: dict[str, ir.Value] = {}
    count = 0
    for linear in found:
        if linear.name in quantized:
            decision = quantized[linear.name]
            if linear.name not in weights:
                weights[linear.name] = _weight(model.graph, linear, decision)
            linear.product.replace_input_with(1, weights[linear.name])
            linear.product.name = linear.name
            if decision.inputs is not None:
                key = (linear.input, decision.activation_scale, decision.divisors)
                if key not in pairs:
                    pairs[key] = _pair(model.graph, linear, decision)
                linear.product.replace_input_with(0, pairs[key])
            count += 1
    return count


def _weight(graph: ir.Graph, linear: Linear, decision: StoredDecision) -> ir.Value:
    """DequantizeLinear of the codes, transposed where the product wants [in, out]."""
    name = str(linear.weight.name)
    codes = _initializer(graph, f"{name}.codes", decision.codes)
    scales = _initializer(graph, f"{name}.scales", decision.scales)
    blocks = {"block_size": decision.group} if decision.group is not None else {}
    axis = 1 - linear.output_axis if blocks else linear.output_axis
    dequantize = ir.node("DequantizeLinear", [codes, scales], {"axis": axis, **blocks})
    value = _typed(dequantize, linear.weight.shape, f"{name}.dequantized")
    nodes = [dequantize]
    if linear.is_turned:
        assert linear.weight.shape is not None
        transpose = ir.node("Transpose", [value], {"perm": [1, 0]})
        value = _typed(transpose, ir.Shape(list(linear.weight.shape)[::-1]), f"{name}.transposed")
        nodes.append(transpose)
    graph.insert_before(linear.product, nodes)
    return value


def _pair(graph: ir.Graph, linear: Linear, decision: StoredDecision) -> ir.Value:
    """The input, rounded to codes and back."""
    assert decision.inputs is not None
    name, taken = f"{linear.name}.input", linear.input
    if decision.divisors is not None:
        divisors = _initializer(graph, f"{name}.divisors", decision.divisors)
        quotient = ir.node("Div", [taken, divisors])
        graph.insert_before(linear.product, quotient)
        taken = _typed(quotient, linear.input.shape, f"{name}.divided")
    return round_input(linear.product, taken, name, decision.inputs, decision.activation_scale)


def round_input(user: ir.Node, taken: ir.Value, name: str, inputs: InputFormat, scale: float | None) -> ir.Value:
    """A value, float32 of any shape, rounded to codes and back in front of its user; what is added is named below
    `name`. `scale` is what a code of 1 stands for, None where each execution finds it anew.
    """
    graph, dtype = user.graph, CODES[inputs]
    assert isinstance(graph, ir.Graph)
    if scale is None:
        quantize = ir.node("DynamicQuantizeLinear", [taken], num_outputs=3)
        codes, step, zero = quantize.outputs
        for value, part, of in ((step, "scale", ir.DataType.FLOAT), (zero, "zero", dtype)):
            value.name, value.shape, value.type = f"{name}.{part}", ir.Shape([]), ir.TensorType(of)
    else:
        step = _initializer(graph, f"{name}.scale", ir.tensor(np.array(scale, np.float32)))
        zero = _initializer(graph, f"{name}.zero", ir.tensor(np.array(0, dtype.numpy())))
        quantize = ir.node("QuantizeLinear", [taken, step, zero])
        codes = quantize.outputs[0]
    codes.name, codes.shape, codes.type = f"{name}.codes", taken.shape, ir.TensorType(dtype)
    dequantize = ir.node("DequantizeLinear", [codes, step, zero])
    graph.insert_before(user, [quantize, dequantize])
    return _typed(dequantize, taken.shape, f"{name}.rounded")


def _typed(node: ir.Node, shape: ir.Shape | None, name: str) -> ir.Value:
    value = node.outputs[0]
    value.name, value.shape, value.type = name, shape, ir.TensorType(ir.DataType.FLOAT)
    return value


def _initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    value = ir.Value(
        name=name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value
