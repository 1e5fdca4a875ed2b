"""A lowered graph as an engine's compiler is given it: its file, and the sizes at which it will be executed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wanc.runtime.dimensions import Dimension, split_dimension

if TYPE_CHECKING:
    from wanc.compiler.graphs.lowerable import LowerableGraph
    from wanc.compiler.program.program import ProgramGraph


class SizeRange(NamedTuple):
    """What a size may be, and what it is most often."""

    least: int
    usual: int
    most: int


InputShapes = Mapping[str, tuple[SizeRange, ...]]
"""One kind of request: the shapes of inputs by name, of whatever graphs have them."""
Sizes = Mapping[str, SizeRange]
"""By the name of a size, the same."""


@dataclass(frozen=True)
class LoweredGraph:
    """`path` is an `.onnx` file. Its names for sizes stand for those of the `example`, in the golden record, and for
    those of the `requests`, where anything is known of them.

    `shapes` are the inputs that hold the shape of another, with that shape.
    """

    path: Path
    example: Mapping[str, int] = field(default_factory=dict[str, int])
    requests: tuple[Sizes, ...] = ()
    shapes: Mapping[str, tuple[Dimension, ...]] = field(default_factory=dict[str, tuple[Dimension, ...]])


def lowered_graph(path: Path, graph: LowerableGraph, requests: Sequence[InputShapes]) -> LoweredGraph:
    """The file of a graph with what its sizes are in these requests."""
    sizes = sizes_in(graph, requests)
    declared = {entry.name: entry.shape for entry in graph.whole.inputs}
    shapes = {entry.name: declared[entry.shape_of] for entry in graph.graph.inputs if entry.shape_of is not None}
    example = {**graph.whole.example, **graph.graph.example}
    return LoweredGraph(path, example, sizes, shapes)


def sizes_in(graph: LowerableGraph, requests: Sequence[InputShapes]) -> tuple[Sizes, ...]:
    """What the names of sizes in a graph stand for, in each kind of request of which that is known."""
    found = (_sizes(graph.whole, shapes) for shapes in requests)
    return tuple(_with_computed(sizes, graph.computed) for sizes in found if sizes)


def _sizes(graph: ProgramGraph, shapes: InputShapes) -> Sizes:
    """What the names in a graph's interface stand for, where its inputs have these shapes."""
    found: dict[str, SizeRange] = {}
    for entry in graph.inputs:
        for size, extent in zip(entry.shape, shapes.get(entry.name, ()), strict=False):
            factor, name = split_dimension(size)
            if name:
                found[name] = SizeRange(*(end // factor for end in extent))
    return found


def _with_computed(sizes: Sizes, computed: Mapping[str, str]) -> Sizes:
    import onnx_ir as ir

    ends = [{name: extent[end] for name, extent in sizes.items()} for end in range(3)]
    made: dict[str, SizeRange] = {}
    for name, text in computed.items():
        values = [ir.SymbolicDim(text).evaluate(sizes_at) for sizes_at in ends]
        if len(known := [value for value in values if isinstance(value, int)]) == len(values):
            made[name] = SizeRange(*known)
    return {**sizes, **made}
