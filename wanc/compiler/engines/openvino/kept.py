"""What an open file of OpenVINO keeps of its largest execution, for as long as it is open.

A kernel of attention lays keys and values out anew, where those of a head are more than the processor's cache takes,
and the memory for that is never given back (2026.4).
"""

from __future__ import annotations

from math import prod

import openvino

from wanc.compiler.engines.openvino.sizes import Shapes
from wanc.compiler.engines.products import openvino_attentions

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
    cached = CACHED // (2 * element_bytes)
    factors = (node.input(1).get_partial_shape() for node in openvino_attentions(model))
    sizes = (list(factor.to_shape()) for factor in factors if factor.is_static)
    return max((2 * element_bytes * prod(each) for each in sizes if prod(each[-2:]) > cached), default=0)
