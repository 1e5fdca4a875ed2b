"""Single Linears of a graph that was lowered for OpenVINO, executed as they stand in its IR."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import openvino

from wanc.compiler.engines.openvino.halves import in_order
from wanc.compiler.engines.openvino.slices import slice_number
from wanc.compiler.graphs.quantized_linears import CODES
from wanc.runtime.backends.openvino import INPUTS_AS_THEY_ARE, core

Array = np.ndarray[Any, Any]

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
        """What the Linear gives for rows of its input, float32 [rows, in] → [rows, out], without its bias."""
        if linear not in self._codes:
            return None
        products = _products(self._codes[linear])
        width = products[0].input(0).get_partial_shape()[-1].get_length()
        if width == inputs.shape[-1]:
            return np.concatenate([self._run(product, inputs) for product in products], axis=-1)
        pieces = np.split(inputs, len(products), axis=-1)
        return np.sum([self._run(*each) for each in zip(products, pieces, strict=True)], axis=0)

    def _run(self, product: Any, inputs: Array) -> Array:
        port = _rounded(product)
        source = port.get_source_output()
        rows = openvino.opset13.parameter([1, -1, inputs.shape[-1]], np.float32)
        port.replace_source_output(rows.output(0))
        try:
            part = cast(Any, openvino).Model([product.output(0)], [rows])
            compiled = core().compile_model(part, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **INPUTS_AS_THEY_ARE})
            outputs = compiled([np.ascontiguousarray(inputs)[None]])[0]
        finally:
            port.replace_source_output(source)
        return in_order(outputs[0], product.get_friendly_name())


def _products(node: Any) -> list[Any]:
    """The product that takes what a node gives, or those of its slices in their order.

    To ask for a node's sizes, as codes in blocks are asked, is not to take what it gives.
    """
    if node.get_type_name() == "MatMul":
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
