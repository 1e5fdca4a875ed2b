"""What a video of a causal model keeps until it ends, counted from what its bundle says: before anything is computed.

For each expert and guidance branch these are a ring of keys and values, and what is computed of the prompt once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import numpy as np

from .cache_facts import CacheFacts, left_by_a_chunk
from .denoise import BRANCHES, TEXT, Expert
from .denoise import GRAPH as STEP
from .errors import BundleError
from .interface import Interface
from .kvcache import ring_arrays

SessionBytes = Mapping[tuple[str, str], int]
"""By expert and branch."""


def session_bytes(
    facts: CacheFacts,
    experts: Sequence[Expert],
    graphs_of: Callable[[str], Mapping[str, Interface]],
    size: Sequence[int],
) -> SessionBytes:
    """Of a video whose latents have `size` rows and columns. Raises BundleError for graphs of no causal expert."""
    found: dict[tuple[str, str], int] = {}
    for expert in experts:
        graphs = graphs_of(expert.component)
        left = left_by_a_chunk(graphs[STEP], facts.chunk, size)
        arrays = ring_arrays(facts.window, left, facts.precision).values()
        ring = sum(prod(shape) * np.dtype(dtype).itemsize for shape, dtype in arrays)
        found |= {(expert.component, branch): ring + text_bytes(graphs) for branch in BRANCHES[: expert.branches]}
    return found


def text_bytes(graphs: Mapping[str, Interface]) -> int:
    """What one branch of an expert computes of its text, and keeps. Raises BundleError where a size is left open."""
    of_text = [graph for name, graph in graphs.items() if name != STEP and TEXT in {one.name for one in graph.inputs}]
    found = 0
    for output in (output for graph in of_text for output in graph.outputs):
        sizes = [size for size in output.shape if isinstance(size, int)]
        if len(sizes) < len(output.shape):
            raise BundleError(f"{output.name}, which a causal expert keeps of a prompt, has no size")
        found += prod(sizes) * np.dtype(output.dtype).itemsize
    return found
