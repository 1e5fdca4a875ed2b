"""The products of a lowered graph by name: those of Linears, and those of attentions, with their FLOPs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import onnx_ir as ir

from wanc.compiler.engines.tensorrt.attention import RESULT, SCORES
from wanc.compiler.graphs.pieces import constants
from wanc.compiler.graphs.values import sizes_at


@dataclass
class LoweredProducts:
    """FLOPs of one execution, a multiplication and an addition being two: of Linears and of attentions, each by its
    name, and of products of two activations that are of no attention.
    """

    linears: dict[str, int] = field(default_factory=dict[str, int])
    attentions: dict[str, int] = field(default_factory=dict[str, int])
    others: int = 0


def lowered_products(model: ir.Model, sizes: Mapping[str, int]) -> LoweredProducts:
    """What a lowered graph multiplies, at these sizes."""
    found, fixed = LoweredProducts(), constants(model.graph)
    for node in model.graph:
        if (node.domain, node.op_type) != ("", "MatMul"):
            continue
        left, right = node.inputs
        assert left is not None and right is not None
        flops, name = 2 * prod(_shape(node.outputs[0], sizes)) * _shape(left, sizes)[-1], str(node.name)
        if right.is_initializer() or right.producer() in fixed:
            found.linears[name] = flops
        elif name.endswith((SCORES, RESULT)):
            attention = name.removesuffix(SCORES).removesuffix(RESULT)
            found.attentions[attention] = found.attentions.get(attention, 0) + flops
        else:
            found.others += flops
    return found


def _shape(value: ir.Value, sizes: Mapping[str, int]) -> list[int]:
    """A value's shape; a size that is not known counts as one."""
    return [1 if size is None else size for size in sizes_at(value, sizes)] if value.shape else [1]
