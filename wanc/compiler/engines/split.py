"""A denoiser whose segments several devices execute: its step is split over them by its tokens, before it is cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from wanc.compiler.engines.lowered_graph import InputShapes, sizes_in
from wanc.compiler.graphs.lowerable import LowerableGraph
from wanc.compiler.graphs.ulysses import split_tokens
from wanc.compiler.program.program import ProgramGraph
from wanc.errors import RecipeError
from wanc.runtime.denoise import GRAPH
from wanc.runtime.engine_file import OWN_TOKENS


def split(
    graphs: Mapping[str, LowerableGraph],
    ranks: int,
    requests: Sequence[InputShapes] = (),
    *,
    is_exchanged_for: bool = False,
) -> dict[str, LowerableGraph]:
    """The graphs of a denoiser as each of several ranks executes them: all but the step as one alone would.

    What they are given belongs to them, and is changed. Where the step `is_exchanged_for` by the runtime, its interface
    says which inputs are split, so that tokens which cannot be are refused before anything runs. Raises what
    `split_tokens` raises, and RecipeError where it would refuse the golden record.
    """
    step = graphs[GRAPH]
    shapes = [{name: extent.usual for name, extent in sizes.items()} for sizes in sizes_in(step, requests)]
    tokens = str(split_tokens(step.model, ranks, shapes))
    own = f"({step.computed.get(tokens, tokens)})/{ranks}"
    example = tokens_of_a_rank(own, step.whole.example)
    sizes = {OWN_TOKENS: example} if example is not None else {}
    graph = replace(step.graph, example={**step.graph.example, **sizes})
    if is_exchanged_for:
        graph = _declared(graph, tokens, ranks)
    return {**graphs, GRAPH: replace(step, graph=graph, computed={**step.computed, OWN_TOKENS: own})}


def _declared(graph: ProgramGraph, tokens: str, ranks: int) -> ProgramGraph:
    """An interface whose inputs have so many times a rank's tokens, where they have all of them."""
    if OWN_TOKENS not in graph.example:
        raise RecipeError(
            f"the video of the self-test has tokens that cannot be split over {ranks} ranks",
            hint="choose another number: partition.ulysses",
        )
    all_of_them = f"{ranks}*{OWN_TOKENS}"
    inputs = [
        replace(entry, shape=tuple(all_of_them if size == tokens else size for size in entry.shape))
        for entry in graph.inputs
    ]
    return replace(graph, inputs=tuple(inputs))


def tokens_of_a_rank(computed: str, sizes: Mapping[str, int]) -> int | None:
    """How many tokens each rank has at these sizes, as `split` notes what they are `computed` of; None where some
    would have more.
    """
    count = ir.SymbolicDim(computed).evaluate(sizes)
    return count if isinstance(count, int) else None
