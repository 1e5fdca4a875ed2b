"""A build lies where the planner has put it, in segments that can be built in the memory that they may take."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wanc.compiler.placement import Range, check_peak, placement, planned_ranges, whole_model
from wanc.compiler.planner.building import component_of, segment_bytes
from wanc.compiler.planner.options import PlanOptions
from wanc.compiler.planner.plan import plan_video
from wanc.errors import UserError

from .planner.clusters import cluster
from .planner.counted import a14b

GIB = 2**30
GPU = "gpu0"


@pytest.mark.parametrize("linears", ["bf16", "int8"])
@pytest.mark.parametrize("gibibytes", [3, 5, 8])
def test_no_segment_takes_more_to_build_than_it_may(gibibytes: int, linears: str) -> None:
    costs = a14b(linears=linears)
    placed = placement(costs, whole_model(costs, GPU), gibibytes * GIB)
    for segment in placed.segments:
        component = component_of(costs, segment.component)
        assert segment_bytes(component, segment.first, segment.stop) <= gibibytes * GIB
    for expert in costs.experts:
        count = sum(segment.component == expert.name for segment in placed.segments)
        # With one segment fewer it would not fit.
        fewer = -(-len(expert.parts) // (count - 1))
        assert segment_bytes(expert, 0, fewer) > gibibytes * GIB


def test_less_than_one_block_takes_is_refused_with_the_number() -> None:
    costs = a14b()
    with pytest.raises(UserError, match=r"a block of \w+ takes \d\.\d\d GiB to build") as caught:
        placement(costs, whole_model(costs, GPU), GIB)
    needed = int(str(caught.value.hint).rpartition(" ")[2].removesuffix("MiB")) * 2**20
    assert placement(costs, whole_model(costs, GPU), needed).segments


def test_the_engine_of_a_timestep_counts_where_it_is_built() -> None:
    """With its weights in float32 it takes more than a block whose Linears are in INT8."""
    costs = a14b(linears="int8")
    (expert, *_) = costs.experts
    first, second = (segment_bytes(expert, block, block + 1) for block in (0, 1))
    assert first > 2.33 * GIB > second, "as measured"
    with pytest.raises(UserError, match=r"a block of denoiser_\w+ takes"):
        placement(costs, whole_model(costs, GPU), 2 * GIB)


@given(
    cuts=st.sets(st.integers(1, 39), max_size=5),
    most=st.none() | st.integers(4 * GIB, 40 * GIB),
)
def test_segments_are_all_blocks_in_their_order_on_the_devices_asked_for(cuts: set[int], most: int | None) -> None:
    costs = a14b()
    bounds = [0, *sorted(cuts), 40]
    ranges = [
        Range("denoiser_high", first, stop, f"gpu{index}") for index, (first, stop) in enumerate(pairwise(bounds))
    ]
    segments = placement(costs, ranges, most).segments
    assert [segment.index for segment in segments] == list(range(len(segments)))
    assert [segment.first for segment in segments] == [0, *[segment.stop for segment in segments][:-1]]
    assert segments[-1].stop == 40
    for segment in segments:
        (owner,) = [one for one in ranges if one.first <= segment.first and segment.stop <= one.stop]
        assert segment.device == owner.device


def test_an_engine_that_took_more_than_predicted_is_refused() -> None:
    check_peak("compile denoiser_high/0", 2 * GIB, None)
    check_peak("compile denoiser_high/0", 2 * GIB, 2 * GIB)
    with pytest.raises(UserError, match=r"compile denoiser_high/0 took 2\.00 GiB, more than the 1\.00 GiB"):
        check_peak("compile denoiser_high/0", 2 * GIB, GIB)


def test_chains_for_each_branch_give_one_set_of_segments() -> None:
    costs = a14b(decoder="bf16")
    options = PlanOptions(branches="parallel", ulysses=1, replicas=1, compare=False)
    plan = plan_video(costs, cluster("a100-80g", 4), options)
    assert len({device.lane for device in plan.devices}) == 2
    segments = placement(costs, planned_ranges(plan), None).segments
    for component in costs.components:
        own = [segment for segment in segments if segment.component == component.name]
        assert [segment.first for segment in own] == [0, *[segment.stop for segment in own][:-1]]
        assert own[-1].stop == len(component.parts)
