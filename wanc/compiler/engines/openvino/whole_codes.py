"""Inputs of quantised convolutions as the whole numbers that their codes are; their steps go into the weights' scales.

Where frames of different origin are joined around what rounds them, or their axes are written otherwise, the plugin
rounds to whole numbers whatever a code stands for (2026.4). Where it stands for itself, that is what is to be done.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.quantized_linears import QuantizedLinear, quantized_linears
from wanc.compiler.graphs.values import producer, scalar
from wanc.compiler.passes.rewrite import OPSET, Pass, PassOutcome, Refusal


def make_whole(model: ir.Model) -> PassOutcome:
    """Let the codes of each convolution's input stand for themselves."""
    outcome = PassOutcome()
    by_input: dict[ir.Node, list[QuantizedLinear]] = {}
    for linear in quantized_linears(model):
        rounded = producer(linear.product.inputs[0], "DequantizeLinear")
        if linear.is_convolution and linear.rounds_input and rounded is not None:
            by_input.setdefault(rounded, []).append(linear)
    for rounded, linears in by_input.items():
        step, value = scalar(rounded.inputs[1]), rounded.outputs[0]
        if step == 1:
            continue
        if step is None:
            outcome.refusals.append(Refusal(str(value.name), "what a code stands for is computed"))
            continue
        if {use.node for use in value.uses()} != {linear.product for linear in linears} or value.is_graph_output():
            outcome.refusals.append(Refusal(str(value.name), "something else takes it"))
            continue
        rounded.replace_input_with(1, _constant(rounded, 1.0))
        for weight in dict.fromkeys(producer(linear.product.inputs[1], "DequantizeLinear") for linear in linears):
            assert weight is not None, "the weights of quantised convolutions are codes"
            _multiply_scales(weight, step)
        outcome.fired += 1
    return outcome


def _multiply_scales(dequantize: ir.Node, factor: float) -> None:
    scales = dequantize.inputs[1]
    assert scales is not None and dequantize.graph is not None
    product = ir.node("Mul", [scales, _constant(dequantize, factor)])
    product.outputs[0].shape, product.outputs[0].type = scales.shape, scales.type
    dequantize.graph.insert_before(dequantize, product)
    dequantize.replace_input_with(1, product.outputs[0])


def _constant(user: ir.Node, number: float) -> ir.Value:
    node = ir.node("Constant", [], {"value": ir.tensor(np.array(number, np.float32))})
    assert user.graph is not None
    user.graph.insert_before(user, node)
    node.outputs[0].shape, node.outputs[0].type = ir.Shape([]), ir.TensorType(ir.DataType.FLOAT)
    return node.outputs[0]


WHOLE_CODES = Pass(
    "whole-codes",
    "inputs of quantised convolutions → the whole numbers of their codes, with the step in the weights' scales",
    make_whole,
    opset=OPSET,
)
