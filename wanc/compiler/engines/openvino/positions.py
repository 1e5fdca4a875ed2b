"""Positions and conditions that are computed of floats stay in float32, in a model whose products are in bfloat16.

The CPU plugin computes all that precedes a product in bfloat16, positions as well: which row of a picture the nearest
one is, which it is asked as (row + 0.5) / 2, is then another row from 128 on, and may be one behind the last. The mark
that keeps an operation in float32 is lost where the plugin makes one out of several, so sums and products by constants
are written as it would write them: one factor, one sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import numpy as np
import openvino
from openvino import opset14
from openvino.op import Constant

Array = np.ndarray[Any, Any]
PRODUCTS = ("MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData", "ScaledDotProductAttention")
READ_NOTHING = ("Constant", "Parameter", "Result", "ShapeOf")


def deciding(model: openvino.Model) -> list[openvino.Node]:
    """What gives integers or conditions of floats, and what these floats come from, back to products."""
    found: dict[str, openvino.Node] = {}
    ahead = [node for node in model.get_ops() if _takes_floats(node) and not _gives_floats(node) and not _is_code(node)]
    while ahead:
        node = ahead.pop()
        if node.get_friendly_name() in found or node.get_type_name() in (*PRODUCTS, *READ_NOTHING):
            continue
        found[node.get_friendly_name()] = node
        ahead += [port.get_node() for port in node.input_values() if port.get_element_type().is_real()]
    return [node for node in model.get_ordered_ops() if node.get_friendly_name() in found]


def join_constants(model: openvino.Model) -> None:
    """Write what decides, where it is a value with constants added and multiplied in turn, as one product and sum."""
    lines: dict[str, Affine] = {}
    for node in deciding(model):
        if (line := _line(node, lines)) is not None:
            lines[node.get_friendly_name()] = line
    for node in model.get_ordered_ops():
        line = lines.get(node.get_friendly_name())
        takers = {port.get_node().get_friendly_name() for port in node.output(0).get_target_inputs()} if line else set()
        if line and line.steps > 1 and not takers <= lines.keys():
            _write(node, line)
    model.validate_nodes_and_infer_types()


class Affine(NamedTuple):
    """`source` · `factor` + `offset`, float64, which takes so many operations."""

    source: openvino.Output
    factor: Array
    offset: Array
    steps: int

    def by(self, factor: Array) -> Affine:
        return Affine(self.source, self.factor * factor, self.offset * factor, self.steps + 1)

    def plus(self, offset: Array) -> Affine:
        return Affine(self.source, self.factor, self.offset + offset, self.steps + 1)


BY_CONSTANT: Mapping[str, Callable[[Affine, Array], Affine]] = {
    "Add": Affine.plus,
    "Subtract": lambda line, constant: line.plus(-constant),
    "Multiply": Affine.by,
    # The plugin writes a factor for it, which is a step of its own.
    "Divide": lambda line, constant: line.by(1 / constant).plus(np.zeros(())),
}
FROM_CONSTANT: Mapping[str, Callable[[Affine, Array], Affine]] = {
    "Add": Affine.plus,
    "Subtract": lambda line, constant: line.by(-np.ones(())).plus(constant),
    "Multiply": Affine.by,
}
"""What becomes of a line in an operation that has a constant on its right, or on its left."""


def _line(node: openvino.Node, lines: Mapping[str, Affine]) -> Affine | None:
    """What a node makes of a value and a constant; None if it does anything else."""
    operation = node.get_type_name()
    if operation not in BY_CONSTANT or not _gives_floats(node):
        return None
    left, right = node.input_values()
    for source, other, steps in ((left, right, BY_CONSTANT), (right, left, FROM_CONSTANT)):
        if (constant := _constant(other)) is not None and operation in steps:
            known = lines.get(source.get_node().get_friendly_name())
            return steps[operation](known or Affine(source, np.ones(()), np.zeros(()), 0), constant)
    return None


def _write(node: openvino.Node, line: Affine) -> None:
    product = opset14.multiply(line.source, line.factor.astype(np.float32))
    total = opset14.add(product, line.offset.astype(np.float32))
    product.set_friendly_name(f"{node.get_friendly_name()}/factor")
    name = node.get_friendly_name()
    for target in node.output(0).get_target_inputs():
        target.replace_source_output(total.output(0))
    total.output(0).get_tensor().set_names(node.output(0).get_tensor().get_names())
    total.set_friendly_name(name)


def _constant(value: openvino.Output) -> Array | None:
    node = value.get_node()
    return np.array(cast(Constant, node).data, np.float64) if node.get_type_name() == "Constant" else None


def _takes_floats(node: openvino.Node) -> bool:
    """Whether values of floats, and not their sizes alone, are looked at."""
    return node.get_type_name() not in READ_NOTHING and any(port.get_element_type().is_real() for port in node.inputs())


def _is_code(node: openvino.Node) -> bool:
    """Whether its integers are what numbers are rounded to: an activation in INT8 is no position."""
    return node.input_value(0).get_node().get_type_name() == "FakeQuantize"


def _gives_floats(node: openvino.Node) -> bool:
    return all(port.get_element_type().is_real() for port in node.outputs())
