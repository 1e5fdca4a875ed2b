"""Which numbers an input may hold that says which rows of a table are taken.

What lies outside of a table is an error in one engine, and whatever lies in memory there in another. So it is found
out here how large the tables are, and the runtime looks at the numbers before any engine does.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from wanc.compiler.graphs.values import attribute, size

INDEXING = ("Gather", "GatherElements", "ScatterElements", "GatherND", "ScatterND")
"""They take indices second, in an axis of what they take first."""
ALONG = (
    "Cast",
    "Concat",
    "Expand",
    "Flatten",
    "Identity",
    "Reshape",
    "Slice",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
"""They give the numbers that they take first; Concat all that it takes."""
Range = tuple[int, int]


def index_ranges(graph: ir.Graph) -> dict[str, Range]:
    """The least and the largest number that inputs may hold, by name, as far as tables of a fixed size say.

    Only what is taken as it is is followed: an index that is calculated from an input says nothing about the input.
    """
    found: dict[str, Range] = {}
    for value in graph.inputs:
        if value.dtype is not None and value.dtype.is_integer() and (sizes := list(_sizes(value))):
            found[str(value.name)] = (-min(sizes), min(sizes) - 1)
    return found


def _sizes(value: ir.Value) -> Iterator[int]:
    """The sizes of the axes that a value's whole numbers are indices of."""
    waiting, seen = [value], {value}
    while waiting:
        for use in waiting.pop().uses():
            node, result = use.node, use.node.outputs[0]
            # What a subgraph takes it may never take.
            if node.domain or node.graph is not value.graph:
                continue
            if node.op_type in INDEXING and use.idx == 1:
                yield from _indexed(node)
            elif _gives_on(node, use.idx) and result not in seen:
                seen.add(result)
                waiting.append(result)


def _gives_on(node: ir.Node, index: int) -> bool:
    """Whether a node gives the numbers of this input."""
    if node.op_type == "Cast":
        return ir.DataType(attribute(node, "to")).is_integer()
    return node.op_type == "Concat" or (node.op_type in ALONG and index == 0)


def _indexed(node: ir.Node) -> list[int]:
    """The size of the axis that a node's indices are of, if it is fixed."""
    taken, indices = node.inputs[:2]
    if not node.op_type.endswith("ND"):
        found = size(taken, attribute(node, "axis", 0))
        return [] if found is None else [found]
    # Numbers of one array are indices of several axes: none may be beyond the longest.
    batch, count = attribute(node, "batch_dims", 0), size(indices, -1)
    axes = [size(taken, batch + axis) for axis in range(count or 0)]
    known = [found for found in axes if found is not None]
    return [max(known)] if known and len(known) == len(axes) else []
