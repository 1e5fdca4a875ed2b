"""The sizes of a first execution, which is part of opening a file: by it OpenVINO packs weights."""

from __future__ import annotations

import onnx_ir as ir

from wanc.compiler.engines.lowered_graph import LoweredGraph

Shapes = dict[str, list[int]]


def first_shapes(canonical: ir.Model, graph: LoweredGraph) -> Shapes | None:
    """What the example's inputs are, by name; None where zeros of some sizes will not do.

    So it is where an input holds sizes itself, where they are not known, and where one of those that change is 1, for
    which the library compiles what it takes for other sizes only by mistake.
    """
    found: Shapes = {}
    for value in canonical.graph.inputs:
        if value.name in graph.shapes or value.shape is None:
            return None
        sizes = [size if isinstance(size, int) else _changing(size, graph) for size in value.shape]
        if None in sizes:
            return None
        found[str(value.name)] = [size for size in sizes if size is not None]
    return found


def _changing(size: ir.SymbolicDim, graph: LoweredGraph) -> int | None:
    """What a size is in the example, if that is known and is not 1."""
    found = size.evaluate(graph.example)
    return found if isinstance(found, int) and found != 1 else None
