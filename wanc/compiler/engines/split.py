"""A denoiser whose segments several devices execute: its step is split over them by its tokens, before it is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from wanc.compiler.engines.lowered_graph import InputShapes, sizes_in
from wanc.compiler.graphs.lowerable import LowerableGraph
from wanc.compiler.graphs.ulysses import OWN_TOKENS, split_tokens
from wanc.runtime.denoise import GRAPH


def split(
    graphs: Mapping[str, LowerableGraph], ranks: int, requests: Sequence[InputShapes] = ()
) -> dict[str, LowerableGraph]:
    """The graphs of a denoiser as each of several ranks executes them: all but the step as one alone would.

    What they are given belongs to them, and is changed. Raises what `split_tokens` raises.
    """
    step = graphs[GRAPH]
    shapes = [{name: extent.usual for name, extent in sizes.items()} for sizes in sizes_in(step, requests)]
    tokens = str(split_tokens(step.model, ranks, shapes))
    own = f"({step.computed.get(tokens, tokens)})/{ranks}"
    example = tokens_of_a_rank(own, step.whole.example)
    sizes = {OWN_TOKENS: example} if example is not None else {}
    graph = replace(step.graph, example={**step.graph.example, **sizes})
    return {**graphs, GRAPH: replace(step, graph=graph, computed={**step.computed, OWN_TOKENS: own})}


def tokens_of_a_rank(computed: str, sizes: Mapping[str, int]) -> int | None:
    """How many tokens each rank has at these sizes, as `split` notes what they are `computed` of; None where some
    would have more.
    """
    count = ir.SymbolicDim(computed).evaluate(sizes)
    return count if isinstance(count, int) else None
