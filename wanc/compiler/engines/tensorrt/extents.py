"""Lowering of sizes: one extent has one name.

The tokens of a video are `columns*rows*frames` where they are computed, and `columns_rows_frames` where a part that was
cut off gives them. TensorRT takes two names for two sizes, of which nothing says that they are equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx_ir as ir

from wanc.compiler.graphs.hoist import name_of_size
from wanc.compiler.passes.rewrite import Pass, PassOutcome

PLAIN = re.compile(r"(\d+\*)?[A-Za-z_]\w*")
"""A name, or a multiple of one."""


def one_name(model: ir.Model) -> PassOutcome:
    """Write a size that is computed of names as the name that an input has for it."""
    names = {str(size) for value in model.graph.inputs for size in value.shape or ()}
    outcome = PassOutcome()
    for value in _values(model.graph):
        if value.shape is None:
            continue
        sizes = [_renamed(size, names) for size in value.shape]
        if sizes != list(value.shape):
            value.shape = ir.Shape(sizes)
            outcome.fired += 1
    return outcome


def _renamed(size: int | ir.SymbolicDim, names: set[str]) -> int | ir.SymbolicDim:
    if isinstance(size, int) or not size.value or PLAIN.fullmatch(str(size)):
        return size
    name = name_of_size(str(size))
    return ir.SymbolicDim(name) if name in names else size


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


EXTENTS = Pass("extents", "sizes that are computed of others → the names that inputs have for them", one_name)
