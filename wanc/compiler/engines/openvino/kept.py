"""What an open file of OpenVINO keeps of its largest execution, for as long as it is open.

A kernel of attention lays keys and values out anew, where those of a head are more than the processor's cache takes,
and the memory for that is never given back (2026.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import openvino

from wanc.compiler.engines.openvino.sizes import Shapes

CACHED = 2**19
"""Bytes of keys and values of one head that are not laid out anew."""


def kept_bytes(model: openvino.Model, shapes: Shapes, element_bytes: int) -> int:
    """Of attentions whose numbers are so many bytes, where the inputs have these shapes; `model` has them afterwards.

    Products of sizes that values decide are not counted.
    """
    try:
        model.reshape(shapes)
    except RuntimeError:  # its kernels take more than its inference does
        return 0
    return max((2 * element_bytes * factor for factor in _factors(model, CACHED // (2 * element_bytes))), default=0)


def _factors(model: openvino.Model, cached: int) -> Iterator[int]:
    """The elements of the keys, or of the values, of attentions with more of them in a head than are `cached`."""
    computed: set[str] = set()
    for node in model.get_ordered_ops():
        sides = [port.get_node().get_friendly_name() in computed for port in node.input_values()]
        if node.get_type_name() == "Parameter" or any(sides):
            computed.add(node.get_friendly_name())
        is_attention = node.get_type_name() == "ScaledDotProductAttention"
        if not is_attention and not (node.get_type_name() == "MatMul" and all(sides)):
            continue
        if (shape := node.input(1).get_partial_shape()).is_static:
            sizes = list(shape.to_shape())
            if prod(sizes[-2:]) > cached:
                yield prod(sizes)
