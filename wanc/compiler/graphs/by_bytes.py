"""Cutting by bytes: pieces with no more weights than fit, cut where the fewest values are alive.

So a model is executed at build time whatever its size (`host.chain`). Nothing of the target enters: moving a boundary
between two devices must not calibrate again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import onnx_ir as ir

from wanc.compiler.graphs.pieces import Piece, alive, copied, cut, reaching

FLOAT_BYTES = 4
"""What an element of a weight takes when it is computed with, whatever it is stored as."""


def cut_by_bytes(model: ir.Model, most_weight_bytes: int) -> list[Piece]:
    """The pieces of a graph, in the order of execution. A node with more weights than that is alone in its piece."""
    repeated = copied(model.graph)
    nodes = [node for node in model.graph if node not in repeated]
    reach = reaching(set(nodes))
    weights = [{value: _bytes(value) for value in reach(node)[1]} for node in nodes]
    ends = _ends(weights, alive(nodes, reach), most_weight_bytes)
    return cut(model, [nodes[start:end] for start, end in pairwise([0, *ends])] or [nodes])


def _ends(weights: Sequence[Mapping[ir.Value, int]], counts: Sequence[int], most: int) -> list[int]:
    """Behind how many nodes each piece ends: at the narrowest place in the second half of what fits.

    `weights` are the bytes of each that a node uses, `counts` how many values are alive behind it.
    """
    ends: list[int] = []
    start = 0
    while start < len(weights):
        held = _held(weights[start:], most)
        longest = start + max(1, len(held))
        if longest < len(weights):
            shortest = start + max(1, int(np.searchsorted(held, most // 2, side="left")))
            candidates = range(min(shortest, longest), longest + 1)
            start = min(candidates, key=lambda end: (counts[end - 1], -end))
        else:
            start = len(weights)
        ends.append(start)
    return ends


def _held(weights: Sequence[Mapping[ir.Value, int]], most: int) -> list[int]:
    """The bytes that the first nodes use together, each with those before it, as far as that is not too much."""
    seen: dict[ir.Value, int] = {}
    held: list[int] = []
    total = 0
    for used in weights:
        total += sum(count for value, count in used.items() if value not in seen)
        if total > most:
            break
        seen |= used
        held.append(total)
    return held


def _bytes(value: ir.Value) -> int:
    return FLOAT_BYTES * (value.const_value.size if value.const_value is not None else 0)
