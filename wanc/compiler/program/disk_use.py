"""How many bytes weights take on disk where they are executed, told from their shapes alone."""

from __future__ import annotations

from math import prod

from wanc.compiler.program.component_files import ComponentFiles

FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")
FLOAT_BYTES = 4
# Graphs, indices, and what lies between aligned tensors.
OTHERS = 1.08


def executed_bytes(files: ComponentFiles) -> int:
    """A component's graphs with its weights as they are executed: floats in four bytes, and codes as they are."""
    weights = files.component.weights.values()
    stored = sum(FLOAT_BYTES * prod(one.shape) if one.dtype in FLOATS else one.length for one in weights)
    return stored + graph_bytes(files)


def graph_bytes(files: ComponentFiles) -> int:
    """A component's graphs, as they are."""
    return sum(files.path(graph).stat().st_size for graph in files.component.graphs)


def with_others(count: float) -> int:
    """What is written in all, where tensors are so many bytes."""
    return int(count * OTHERS)
