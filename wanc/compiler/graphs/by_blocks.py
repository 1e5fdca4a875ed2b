"""Cutting by blocks: a component's segments, each a range of its blocks, as a placement has them.

A node belongs to the block whose weights it uses. One without weights could stand on either side of a boundary; the
cut is made where the fewest values are alive, which is behind the last addition to the residual stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import onnx_ir as ir

from wanc.compiler.graphs.pieces import Piece, Reach, alive, constants, copied, cut, reaching
from wanc.compiler.graphs.values import Place, place_of
from wanc.runtime.cache_facts import PAST


def cut_by_blocks(model: ir.Model, blocks: Sequence[str], starts: Sequence[int]) -> list[Piece | None]:
    """One piece for each segment; None where the graph computes nothing there.

    `blocks` are the paths of a component's blocks in their order, and `starts` the first block of each segment but
    the first one, rising. What comes before the first block goes with it, what comes behind the last one with that.
    """
    nodes, reach, earliest = _by_block(model, blocks)
    own = {node: _own_block(reach(node)[1], blocks) for node in nodes}
    # What depends on a later block stands behind what does not, whatever order the graph has them in.
    nodes.sort(key=earliest.__getitem__)
    counts = alive(nodes, reach)
    ends = [_end(nodes, earliest, own, counts, start) for start in starts]
    groups = [nodes[start:end] for start, end in pairwise([0, *ends, len(nodes)])]
    pieces = iter(cut(model, [group for group in groups if group] or [nodes]))
    return [next(pieces) if group or (not nodes and not index) else None for index, group in enumerate(groups)]


def block_ends(model: ir.Model, blocks: Sequence[str]) -> list[str]:
    """What goes on from each block but the last one to the next: the name of the one value that is alive behind it.

    Empty where there is no such value, as in a graph whose blocks do not follow one another.
    """
    nodes, reach, earliest = _by_block(model, blocks)
    own = {node: _own_block(reach(node)[1], blocks) for node in nodes}
    nodes.sort(key=earliest.__getitem__)
    counts, names = alive(nodes, reach), list[str]()
    for start in range(1, len(blocks)):
        end = _end(nodes, earliest, own, counts, start)
        behind = {value for node in nodes[end:] for value in reach(node)[0]}
        passed = [value for node in nodes[:end] for value in node.outputs if value in behind and counts[end - 1] == 1]
        large = [value for value in passed if value.shape is None or len(value.shape) > 1]
        if len(large) != 1:
            return []
        names.append(str(large[0].name))
    return names if len(set(names)) == len(names) else []


def shared_weights(models: Iterable[ir.Model], blocks: Sequence[str]) -> frozenset[Place]:
    """The weights, by where they lie, that are used at several places between which a component may be cut."""
    used: dict[Place, set[int]] = {}
    for model in models:
        nodes, reach, earliest = _by_block(model, blocks)
        for node in nodes:
            for value in reach(node)[1]:
                if isinstance(value.const_value, ir.ExternalTensor):
                    used.setdefault(place_of(value.const_value), set()).add(max(earliest[node], 0))
    return frozenset(place for place, found in used.items() if len(found) > 1)


def block_of(name: str, blocks: Sequence[str]) -> int | None:
    """Which block a weight, or a module, is part of; None where it is of no block."""
    return next((index for index, block in enumerate(blocks) if name.startswith(f"{block}.")), None)


def _by_block(model: ir.Model, blocks: Sequence[str]) -> tuple[list[ir.Node], Reach, dict[ir.Node, int]]:
    """The nodes that are of one piece each, what they take, and the last block that each depends on."""
    repeated = copied(model.graph) | _sizes(model.graph)
    nodes = [node for node in model.graph if node not in repeated]
    reach = reaching(set(nodes))
    return nodes, reach, _earliest(nodes, reach, blocks)


def _sizes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that handle the sizes of inputs, as whole numbers: every piece finds them from the input itself."""
    found: set[ir.Node] = set()
    fixed = constants(graph)
    for node in graph:
        are_sizes = all(
            value.dtype is not None and value.dtype.is_integer() and value.shape is not None and len(value.shape) <= 1
            for value in node.outputs
        )
        of_input = node.op_type == "Shape" and node.inputs[0] is not None and node.inputs[0].is_graph_input()
        taken = [value for value in node.inputs if value is not None and not value.is_initializer()]
        givers = {value.producer() for value in taken} - fixed
        if are_sizes and (of_input or (givers and givers <= found)):
            found.add(node)
    return found


def _own_block(weights: Sequence[ir.Value], blocks: Sequence[str]) -> int | None:
    found = [block for value in weights if (block := block_of(str(value.name), blocks)) is not None]
    return max(found, default=None)


def _earliest(nodes: Sequence[ir.Node], reach: Reach, blocks: Sequence[str]) -> dict[ir.Node, int]:
    """The last block that each node depends on, its own included; -1 for what depends on none."""
    earliest: dict[ir.Node, int] = {}
    for node in nodes:
        values, weights = reach(node)
        before = [earliest[giver] for value in values if (giver := value.producer()) is not None]
        block = _own_block(weights, blocks)
        earliest[node] = max([*before, -1 if block is None else block])
    return {**earliest, **_with_their_users(nodes, reach, earliest)}


def _with_their_users(nodes: Sequence[ir.Node], reach: Reach, earliest: Mapping[ir.Node, int]) -> dict[ir.Node, int]:
    """Of the nodes that are computed of what is past, and of nothing that a block has made, the block that first asks
    for them.

    Such an input is at hand in the segment of its block: it is decoded there, and rotated if positions are relative.
    """
    fresh: set[ir.Node] = set()
    users: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        givers = [giver for value in reach(node)[0] if (giver := value.producer()) is not None]
        for giver in givers:
            users.setdefault(giver, []).append(node)
        is_past = any(value is not None and str(value.name).startswith(PAST) for value in node.inputs)
        if earliest[node] == -1 and (is_past or any(giver in fresh for giver in givers)):
            fresh.add(node)
    moved: dict[ir.Node, int] = {}
    for node in reversed(nodes):
        if node in fresh and not any(value.is_graph_output() for value in node.outputs):
            first = min((moved.get(user, earliest[user]) for user in users.get(node, ())), default=-1)
            moved[node] = max(first, -1)
    return moved


def _end(
    nodes: Sequence[ir.Node],
    earliest: Mapping[ir.Node, int],
    own: Mapping[ir.Node, int | None],
    counts: Sequence[int],
    start: int,
) -> int:
    """Behind how many nodes the segment ends that stands before the block `start`."""
    longest = sum(earliest[node] < start for node in nodes)
    if longest == len(nodes):
        return longest
    pinned = [index for index, node in enumerate(nodes[:longest]) if own[node] is not None]
    shortest = pinned[-1] + 1 if pinned else longest
    return min(range(shortest, longest + 1), key=lambda end: (counts[end - 1] if end else 0, -end))
