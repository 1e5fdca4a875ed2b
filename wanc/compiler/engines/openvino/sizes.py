"""The sizes at which an IR is executed, as far as they are known when it is built: at first, and at most.

The first execution is part of opening a file: by it OpenVINO packs weights. By the largest one it is known what an open
file keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import onnx_ir as ir

from wanc.compiler.engines.lowered_graph import LoweredGraph
from wanc.compiler.graphs.values import sizes_at

Shapes = dict[str, list[int]]


def first_shapes(canonical: ir.Model, graph: LoweredGraph) -> Shapes | None:
    """What the example's inputs are, by name; None where zeros of some sizes will not do.

    So it is where an input holds sizes itself, where they are not known, and where one of those that change is 1, for
    which the library compiles what it takes for other sizes only by mistake.
    """
    if any(value.name in graph.shapes for value in canonical.graph.inputs):
        return None
    return _shapes(canonical, {name: size for name, size in graph.example.items() if size != 1})


def most_shapes(canonical: ir.Model, graph: LoweredGraph) -> Shapes | None:
    """What the inputs are in the request with the most elements, by name; None where that is not known."""
    ends = ({name: extent.most for name, extent in sizes.items()} for sizes in graph.requests)
    found = [shapes for sizes in ends if (shapes := _shapes(canonical, sizes))]
    return max(found, key=lambda shapes: sum(map(prod, shapes.values())), default=None)


def _shapes(canonical: ir.Model, sizes: Mapping[str, int]) -> Shapes | None:
    found: Shapes = {}
    for value in canonical.graph.inputs:
        if value.shape is None:
            return None
        own = sizes_at(value, sizes)
        found[str(value.name)] = [size for size in own if size is not None]
        if None in own:
            return None
    return found
