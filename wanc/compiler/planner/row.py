"""The row of parts that a lane executes for a video, from text to frames: what the search cuts into segments.

A lane is a chain of devices that one or both guidance branches pass through. How the experts share its devices makes
the row: `resident` and `swap` have one row of blocks for both experts, which are cut at the same places; `apart` has
the high-noise expert's blocks and then the low-noise one's, with a cut between; in `stream` the weights of a block come
from the host at every execution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from wanc.compiler.planner.costs import ComponentCosts, PartCosts, VideoCosts

Experts = Literal["resident", "apart", "swap", "stream"]
Phase = Literal["encode", "denoise_high", "denoise_low", "decode"]
PHASES: tuple[Phase, ...] = ("encode", "denoise_high", "denoise_low", "decode")
DENOISE: tuple[Phase, ...] = ("denoise_high", "denoise_low")


@dataclass(frozen=True)
class Use:
    """A part is executed `executions` times for a video, in a phase, by all branches of the lane together."""

    phase: Phase
    component: str
    executions: int


@dataclass(frozen=True)
class RowPart:
    """A part in a row: what it is used for, and the bytes that its device holds for it.

    `index` is its place in its component, of which it is `parts` parts: one, or all of them. `kept` is for one request
    and one branch. `loads` are bytes that come from the host once a video; where `streams` is set all weights come at
    every execution. `rank` is the one that holds and executes it alone in a group whose ranks split tokens, -1 for the
    last one; None where all of them do.
    """

    part: PartCosts
    index: int
    uses: tuple[Use, ...]
    weights: int
    kept: int = 0
    loads: int = 0
    streams: bool = False
    rank: Literal[0, -1] | None = None
    parts: int = 1

    @property
    def executions(self) -> int:
        """In all phases of one video."""
        return sum(use.executions for use in self.uses)


@dataclass(frozen=True)
class Row:
    """Parts in the order of execution, the places where they have to be cut, and how many branches pass through.

    `micro_batches` is how many executions can be under way at once: the branches of all requests in flight.
    """

    parts: tuple[RowPart, ...]
    must_cut: frozenset[int]
    branches: int
    requests: int

    @property
    def micro_batches(self) -> int:
        """Executions that may be under way at once."""
        return self.branches * self.requests


def row_of(costs: VideoCosts, experts: Experts, branches: int, requests: int, *, encodes: bool, decodes: bool) -> Row:
    """The row of a lane that `branches` guidance branches pass through, with so many requests in flight.

    `encodes` and `decodes` say whether the lane also has the text encoder and the decoder, each of them whole.
    """
    before = (_whole(costs.text_encoder, "encode", 0),) if encodes else ()
    after = (_whole(costs.decoder, "decode", -1),) if decodes else ()
    if experts == "apart":
        rows = [tuple(_apart(expert, phase, branches)) for expert, phase in zip(costs.experts, DENOISE, strict=False)]
        must_cut = frozenset({len(before) + len(rows[0])})
        middle = tuple(part for row in rows for part in row)
    else:
        middle = tuple(_shared(costs.experts, experts, branches))
        must_cut = frozenset[int]()
    return Row((*before, *middle, *after), must_cut, branches, requests)


def _whole(component: ComponentCosts, phase: Phase, rank: Literal[0, -1]) -> RowPart:
    """A component that is not cut, as one part."""
    merged = PartCosts(
        component.name,
        tuple(component.kernels()),
        component.weights,
        max(part.activation for part in component.parts),
        component.parts[-1].leaves,
        is_split=False,
    )
    use = Use(phase, component.name, component.executions * component.branches)
    return RowPart(merged, 0, (use,), merged.weights, rank=rank, parts=len(component.parts))


def _apart(expert: ComponentCosts, phase: Phase, branches: int) -> Iterator[RowPart]:
    for index, part in enumerate(expert.parts):
        use = Use(phase, expert.name, expert.executions * branches)
        yield RowPart(part, index, (use,), part.weights, part.kept)


def _shared(experts: tuple[ComponentCosts, ...], mode: Experts, branches: int) -> Iterator[RowPart]:
    """One row for both experts: each device has the same blocks of both."""
    for index, first in enumerate(experts[0].parts):
        parts = [expert.parts[index] for expert in experts]
        uses = tuple(
            Use(phase, expert.name, expert.executions * branches)
            for phase, expert in zip(DENOISE, experts, strict=False)
        )
        largest = max(part.weights for part in parts)
        # Whoever stays also keeps what was computed for a request, until the request ends; and who looks back.
        stays = mode == "resident" or experts[0].looks_back
        kept = (sum if stays else max)(part.kept for part in parts)
        if mode == "resident":
            yield RowPart(first, index, uses, sum(part.weights for part in parts), kept)
        else:
            loads = largest if mode == "swap" and len(parts) > 1 else 0
            yield RowPart(first, index, uses, largest, kept, loads, streams=mode == "stream")
