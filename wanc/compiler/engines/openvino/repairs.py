"""What OpenVINO's reader makes of a few operators is not what ONNX says of them: they are exchanged for what is.

`refusals.py` has what cannot be put right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import openvino
from openvino import opset11, opset14

ULP = np.float32(np.finfo(np.float32).eps)
LEAST = np.finfo(np.float32).tiny


def repair(model: openvino.Model) -> None:
    """Exchange the nodes of a model, in place, for those that do what ONNX says."""
    for node in model.get_ordered_ops():
        make = REPAIRS.get(node.get_type_name())
        better = make(node, node.get_attributes()) if make else None
        if better is None:
            continue
        better.set_friendly_name(node.get_friendly_name())
        for old, new in zip(node.outputs(), better.outputs(), strict=True):
            new.get_tensor().set_names(old.get_tensor().get_names())
            for target in old.get_target_inputs():
                target.replace_source_output(new)
    model.validate_nodes_and_infer_types()


def _top_k(node: openvino.Node, given: Mapping[str, Any]) -> openvino.Node | None:
    """Of equal values the first one comes first, where they come in an order at all."""
    if given["sort"] == "none":
        return None
    names = ("axis", "mode", "sort", "index_element_type")
    return opset11.topk(node.input_value(0), node.input_value(1), *(given[name] for name in names), stable=True)


def _max_pool(node: openvino.Node, given: Mapping[str, Any]) -> openvino.Node | None:
    """No window begins behind the last element, as one may that is rounded up."""
    if given["rounding_type"] != "ceil":
        return None
    names = ("strides", "dilations", "pads_begin", "pads_end", "kernel")
    rest = (given[name] for name in ("auto_pad", "index_element_type", "axis"))
    return opset14.max_pool(node.input_value(0), *(given[name] for name in names), "ceil_torch", *rest)


def _average_pool(node: openvino.Node, given: Mapping[str, Any]) -> openvino.Node | None:
    """As for the largest of a window."""
    if given["rounding_type"] != "ceil":
        return None
    names = ("strides", "pads_begin", "pads_end", "kernel", "exclude-pad")
    return opset14.avg_pool(node.input_value(0), *(given[name] for name in names), "ceil_torch", given["auto_pad"])


def _suppress(node: openvino.Node, _: Mapping[str, Any]) -> None:
    """A box goes that overlaps more than the threshold, and not as much: the next number stands in its place."""
    threshold = node.input_value(3)
    above = opset14.maximum(opset14.multiply(threshold, np.float32(1) + ULP), LEAST)
    node.input(3).replace_source_output(above.output(0))


REPAIRS: Mapping[str, Callable[[openvino.Node, Mapping[str, Any]], openvino.Node | None]] = {
    "AvgPool": _average_pool,
    "MaxPool": _max_pool,
    "NonMaxSuppression": _suppress,
    "TopK": _top_k,
}
