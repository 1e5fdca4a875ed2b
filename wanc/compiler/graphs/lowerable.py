"""The graphs of a component as they are lowered: cut by binding time, and then by the blocks of a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from wanc.compiler.graphs.by_blocks import cut_by_blocks
from wanc.compiler.graphs.hoist import hoist
from wanc.compiler.graphs.index_ranges import index_ranges
from wanc.compiler.graphs.pieces import Piece
from wanc.compiler.program.component_files import ComponentFiles
from wanc.compiler.program.program import ProgramGraph, Segment


@dataclass(frozen=True)
class LowerableGraph:
    """A graph that a bundle will have, with its interface: one that the program has, or a part cut off such a one.

    `whole` is the graph that the program has, and `computed` are sizes that are computed of those in its interface.
    """

    graph: ProgramGraph
    model: ir.Model
    whole: ProgramGraph
    computed: Mapping[str, str]


def lowerable(files: ComponentFiles) -> dict[str, LowerableGraph]:
    """The graphs of a component by name, cut by binding time as they are tagged; givers before takers."""
    found: dict[str, LowerableGraph] = {}
    for name, graph in files.component.graphs.items():
        model, named = files.model(name), graph.named
        for part in hoist(name, model, graph.inputs, graph.outputs, graph.example, graph.hoist, named):
            taken = {entry.name for entry in part.inputs}
            values = {key: value for key, value in graph.values.items() if key in taken}
            ranges = index_ranges(part.model.graph)
            inputs = tuple(replace(entry, range=ranges.get(entry.name)) for entry in part.inputs)
            interface = ProgramGraph(None, inputs, part.outputs, part.example, values)
            found[part.name] = LowerableGraph(interface, part.model, graph, part.computed)
    return found


def piece_of(model: ir.Model, blocks: Sequence[str], segment: Segment) -> Piece | None:
    """What a segment executes of a graph; None where that is nothing. `blocks` are the component's."""
    starts = [bound for bound in (segment.first, segment.stop) if 0 < bound < len(blocks)]
    return cut_by_blocks(model, blocks, starts)[1 if segment.first else 0]
