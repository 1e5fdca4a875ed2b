"""The lowering for TensorRT: its passes in their order. To list them needs no library."""

from __future__ import annotations

from wanc.compiler.engines.ranks import RANKS
from wanc.compiler.engines.tensorrt.attention import WRITTEN_OUT
from wanc.compiler.engines.tensorrt.names import NAMES
from wanc.compiler.engines.tensorrt.norms import NORMS_WRITTEN_OUT
from wanc.compiler.engines.tensorrt.precision import Precision, typing_pass
from wanc.compiler.engines.whole_islands import is_whole_island
from wanc.compiler.passes.order import ordered
from wanc.compiler.passes.rewrite import Pass
from wanc.words import Compute, Island

IN_FLOAT32 = ordered((NAMES, RANKS, WRITTEN_OUT))


def passes_of(precision: Precision) -> tuple[Pass, ...]:
    """The passes of a graph that is computed in this precision."""
    if precision.compute == "fp32":
        return IN_FLOAT32
    return ordered((*IN_FLOAT32, typing_pass(precision), NORMS_WRITTEN_OUT))


def lowering_passes(component: str, graph: str, compute: Compute, islands: tuple[Island, ...]) -> tuple[Pass, ...]:
    """The passes of one graph: of an island as a whole, those that leave it in float32."""
    whole = is_whole_island(component, graph, islands)
    return passes_of(Precision("fp32" if whole else compute, islands))


PASSES = passes_of(Precision("bf16"))
"""All of them, as `wanc passes` lists them."""
