"""Tile for OpenVINO, one axis at a time.

Where the repeats are computed, of three axes and more at once it gives memory that nobody has written (2026.4).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.values import constant, is_filled_with, producer, rank
from wanc.compiler.passes.rewrite import Pass, PassOutcome, Refusal

FEW = 2
"""Axes that it takes at once."""


def tile_by_axes(model: ir.Model) -> PassOutcome:
    """Write a Tile whose repeats are computed as one for each axis."""
    outcome = PassOutcome()
    for node in list(model.graph.all_nodes()):
        if (node.domain, node.op_type) != ("", "Tile") or constant(node.inputs[1]) is not None:
            continue
        axes = rank(node.inputs[0])
        if _is_of_one_axis(node.inputs[1]):
            continue
        if axes is None:
            outcome.refusals.append(Refusal(str(node.outputs[0].name), "the number of dimensions is unknown"))
        elif axes > FEW:
            _write(node, axes)
            outcome.fired += 1
    return outcome


def _is_of_one_axis(repeats: ir.Value | None) -> bool:
    """Whether all other repeats are known to be 1: it is written already."""
    where = producer(repeats, "Where")
    chosen = constant(where.inputs[0]) if where else None
    return where is not None and chosen is not None and chosen.sum() == 1 and is_filled_with(where.inputs[2], 1)


def _write(node: ir.Node, axes: int) -> None:
    value, repeats = node.inputs
    assert node.graph is not None
    ones = ir.node("Constant", [], {"value": ir.tensor(np.ones(axes, np.int64))})
    nodes = [ones]
    for axis in range(axes):
        chosen = ir.node("Constant", [], {"value": ir.tensor(np.arange(axes) == axis)})
        own = ir.node("Where", [chosen.outputs[0], repeats, ones.outputs[0]])
        nodes += [chosen, own, ir.node("Tile", [value, own.outputs[0]])]
        value = nodes[-1].outputs[0]
    result = node.outputs[0]
    nodes[-1].outputs[0].shape, nodes[-1].outputs[0].type = result.shape, result.type
    ir.convenience.replace_nodes_and_values(node.graph, node, [node], nodes, [result], nodes[-1].outputs)


TILES = Pass("tile-by-axes", "a Tile with computed repeats → one for each axis", tile_by_axes, opset=9)
