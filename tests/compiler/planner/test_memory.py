"""Bytes by segment and phase, against sums by hand."""

from __future__ import annotations

import pytest

from wanc.compiler.planner.memory import WORKSPACE, Footprint
from wanc.compiler.planner.row import Experts, row_of

from .counted import a14b

COSTS = a14b()
BLOCK = COSTS.experts[0].parts[1]


@pytest.mark.parametrize("experts", ["resident", "apart", "swap", "stream"])
@pytest.mark.parametrize(("ranks", "rank"), [(1, 0), (4, 0), (4, -1)])
def test_the_peak_is_the_largest_of_all_phases_for_every_segment(experts: Experts, ranks: int, rank: int) -> None:
    row = row_of(COSTS, experts, 2, 3, encodes=True, decodes=True)
    footprint = Footprint(row, ranks, 0 if rank == 0 else -1)
    for start in range(0, len(row.parts), 5):
        for stop in range(start + 1, len(row.parts) + 1):
            assert footprint.peak(start, stop) == max(footprint.by_phase(start, stop).values())


def test_ten_blocks_of_both_experts_by_hand() -> None:
    row = row_of(COSTS, "resident", 2, 3, encodes=True, decodes=True)
    needed = Footprint(row).by_phase(12, 22)
    micro_batches = 2 * 3
    stays = WORKSPACE + 20 * BLOCK.weights + micro_batches * (20 * BLOCK.kept + BLOCK.leaves)
    assert needed == {
        "encode": stays,
        "denoise_high": stays + BLOCK.activation,
        "denoise_low": stays + BLOCK.activation,
        "decode": stays,
    }


def test_ranks_share_activations_and_what_waits_but_no_weights() -> None:
    row = row_of(COSTS, "swap", 2, 1, encodes=True, decodes=True)
    needed = Footprint(row, 4).by_phase(12, 22)["denoise_low"]
    expected = (
        WORKSPACE + 10 * BLOCK.weights + 2 * (10 * BLOCK.kept) + 2 * BLOCK.leaves // 4 + -(-BLOCK.activation // 4)
    )
    assert needed == expected


def test_the_first_of_a_group_has_the_text_encoder_and_the_last_the_decoder() -> None:
    row = row_of(COSTS, "swap", 2, 1, encodes=True, decodes=True)
    first, last = (Footprint(row, 4, rank).weights(0, len(row.parts)) for rank in (0, -1))
    assert first - last == COSTS.text_encoder.weights - COSTS.decoder.weights


def test_two_streamed_parts_are_in_memory_at_once() -> None:
    row = row_of(COSTS, "stream", 2, 1, encodes=False, decodes=False)
    largest = sorted(part.weights for part in COSTS.experts[0].parts)[-2:]
    assert Footprint(row).weights(0, len(row.parts)) == sum(largest)
