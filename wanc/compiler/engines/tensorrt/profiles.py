"""The optimisation profiles of an engine: what each input may be, in each kind of request that a recipe has.

An engine has one profile for each of a recipe's shapes, which share its weights. TensorRT would take a range as well,
but then the smallest of all heights would meet the smallest of all widths, in a video of which nobody knows anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from wanc.compiler.engines.lowered_graph import Extent, LoweredGraph, Sizes
from wanc.runtime.dimensions import split_dimension

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""By input: its smallest, usual and largest shape; of an input that holds a shape, these are its values."""


def profiles_of(model: ir.Model, graph: LoweredGraph) -> list[Profile]:
    """Each profile once; none where no input can change. Without requests, the example's sizes are the only ones."""
    alone = {name: Extent(size, size, size) for name, size in graph.example.items()}
    found: list[Profile] = []
    for sizes in graph.requests or (alone,):
        profile = _profile(model, graph, {**alone, **sizes})
        if profile and profile not in found:
            found.append(profile)
    return found


def _profile(model: ir.Model, graph: LoweredGraph, sizes: Sizes) -> Profile:
    found: dict[str, tuple[Shape, Shape, Shape]] = {}
    for value in model.graph.inputs:
        name, shape = str(value.name), list(value.shape or ())
        if name in graph.shapes:
            found[name] = _ends(map(_symbolic, graph.shapes[name]), sizes)
        elif any(not isinstance(size, int) for size in shape):
            found[name] = _ends(shape, sizes)
    return found


def _symbolic(size: int | str) -> int | ir.SymbolicDim:
    factor, name = split_dimension(size)
    return ir.SymbolicDim(str(size)) if name else factor


def _ends(shape: Iterable[int | ir.SymbolicDim], sizes: Sizes) -> tuple[Shape, Shape, Shape]:
    dimensions = list(shape)
    at = [{name: extent[end] for name, extent in sizes.items()} for end in range(3)]
    least, usual, most = (tuple(_size(size, known) for size in dimensions) for known in at)
    return least, usual, most


def _size(size: int | ir.SymbolicDim, sizes: Mapping[str, int]) -> int:
    found = size if isinstance(size, int) else size.evaluate(sizes)
    if not isinstance(found, int):
        raise ValueError(f"nothing says what the size {size} may be")
    return found
