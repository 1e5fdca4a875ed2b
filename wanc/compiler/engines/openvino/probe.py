"""Single Linears and convolutions of a graph that was lowered for OpenVINO, executed as they stand in its IR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import openvino

from wanc.compiler.engines.openvino.halves import in_order
from wanc.compiler.engines.openvino.slices import slice_number
from wanc.compiler.graphs.quantized_linears import CODES
from wanc.runtime.backends.openvino import INPUTS_AS_THEY_ARE, core

Array = np.ndarray[Any, Any]

CONVOLUTION = "Convolution"
ROUNDING = ("FakeQuantize", "FakeConvert")
BEHIND_ROUNDING = ("Convert", "Multiply", "Subtract")
"""What stands between an input and a product of rounded numbers, once OpenVINO has read it."""


class OpenVinoProber:
    """The quantised Linears of an IR, in float32 whatever the graph itself is computed in."""

    def __init__(self, path: Path) -> None:
        self._model = core().read_model(path)
        self._codes = {
            node.get_friendly_name().split(CODES)[0]: node
            for node in self._model.get_ops()
            if node.get_type_name() == "Constant" and CODES in node.get_friendly_name()
        }

    def run(self, linear: str, inputs: Array) -> Array | None:
        """What the Linear gives for rows of its input, float32 [rows, in] → [rows, out], without its bias.

        A convolution's rows are patches, as under its window.
        """
        if linear not in self._codes:
            return None
        products = _products(self._codes[linear])
        if products[0].get_type_name() == CONVOLUTION:
            return self._convolve(products[0], inputs)
        width = products[0].input(0).get_partial_shape()[-1].get_length()
        if width == inputs.shape[-1]:
            return np.concatenate([self._run(product, inputs) for product in products], axis=-1)
        pieces = np.split(inputs, len(products), axis=-1)
        return np.sum([self._run(*each) for each in zip(products, pieces, strict=True)], axis=0)

    @staticmethod
    def _run(product: Any, inputs: Array) -> Array:
        rows = np.ascontiguousarray(inputs)[None]
        (outputs,) = _executed(product, _rounded(product), rows, [1, -1, inputs.shape[-1]])
        return in_order(outputs, product.get_friendly_name())

    @staticmethod
    def _convolve(convolution: Any, inputs: Array) -> Array:
        """Each patch is a picture of the window's size, and what is looked at is the place where it covers that."""
        _, channels, *kernel = convolution.input(1).get_partial_shape().to_shape()
        given = convolution.get_attributes()
        place = [pad // stride for pad, stride in zip(given["pads_begin"], given["strides"], strict=True)]
        patches = inputs.reshape(len(inputs), channels, *kernel)
        return _executed(convolution, _rounded(convolution), patches, patches.shape)[:, :, *place]


def _executed(product: Any, port: Any, inputs: Array, sizes: Sequence[int]) -> Array:
    """What a product gives where inputs, float32 of these sizes, stand in place of what comes into a port."""
    source = port.get_source_output()
    given = openvino.opset13.parameter(list(sizes), np.float32)
    port.replace_source_output(given.output(0))
    try:
        part = cast(Any, openvino).Model([product.output(0)], [given])
        compiled = core().compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **INPUTS_AS_THEY_ARE})
        return compiled([inputs])[0]
    finally:
        port.replace_source_output(source)


def _products(node: Any) -> list[Any]:
    """The product that takes what a node gives, or those of its slices in their order; or the convolution.

    To ask for a node's sizes, as codes in blocks are asked, is not to take what it gives.
    """
    if node.get_type_name() in ("MatMul", CONVOLUTION):
        return [node]
    users = [target.get_node() for target in node.output(0).get_target_inputs()]
    found = [product for user in users if user.get_type_name() != "ShapeOf" for product in _products(user)]
    return sorted(found, key=lambda product: slice_number(product.get_friendly_name()))


def _rounded(product: Any) -> Any:
    """The input of what rounds the numbers that a product gets, or the product's own where nothing does."""
    port = product.input(0)
    while (node := port.get_source_output().get_node()).get_type_name() in BEHIND_ROUNDING:
        port = node.input(0)
    rounding = port.get_source_output().get_node()
    if rounding.get_type_name() not in ROUNDING:
        return product.input(0)
    port = rounding.input(0)
    divided = port.get_source_output().get_node()
    # FakeQuantize knows its step; what FakeConvert gets is divided by it before.
    is_step = rounding.get_type_name() == "FakeConvert" and divided.get_type_name() == "Divide"
    return divided.input(0) if is_step else port
