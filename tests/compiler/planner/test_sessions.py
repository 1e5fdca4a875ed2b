"""What videos of a causal model keep on each device of a plan, and how many find room: against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from wanc.compiler.planner.cluster import Cluster
from wanc.compiler.planner.costs import ComponentCosts, VideoCosts
from wanc.compiler.planner.options import PlanOptions
from wanc.compiler.planner.plan import Plan, plan_video
from wanc.compiler.planner.row import Experts, row_of
from wanc.compiler.planner.session_bytes import with_past
from wanc.compiler.planner.sessions import Sessions, sessions_of
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.models.wan.facts import facts_of
from wanc.recipe.schema import KeyValueCacheSection
from wanc.recipe.shapes import ShapeSection

from .clusters import cluster, machines, pool
from .counted import A14B, a14b, sparse

CACHE = KeyValueCacheSection(chunk=1, window=2, sink=1, precision="int8")
SHAPE = ShapeSection(name="480p", height=480, width=832, frames=81)
SEEN, HEADS, CHANNELS = 3 * 30 * 52, 40, 128
OF_PAST = 2 * SEEN * HEADS * (CHANNELS + 4)
"""Keys and values of a block for one branch: codes, and a scale for each token and head."""
BIAS = 4 * SEEN
PLAIN = a14b()
OF_TEXT = PLAIN.experts[0].parts[0].kept
BRANCHES, EXPERTS, BLOCKS = 2, 2, 40


@pytest.fixture(scope="module")
def costs(tmp_path_factory: pytest.TempPathFactory) -> VideoCosts:
    """Wan2.2-T2V-A14B, as if it were causal."""
    checkpoint = open_checkpoint(sparse(A14B, tmp_path_factory.mktemp("checkpoints")))
    config, facts = checkpoint.components["denoiser_high"].config, facts_of(checkpoint)
    return replace(PLAIN, experts=tuple(with_past(one, config, CACHE, facts, SHAPE) for one in PLAIN.experts))


def planned(costs: VideoCosts, devices: Cluster, **options: object) -> tuple[Plan, Sessions]:
    plan = plan_video(costs, devices, PlanOptions(compare=False, **options))  # type: ignore[arg-type]
    return plan, sessions_of(plan, costs)


def by_hand(plan: Plan, branches: int = BRANCHES) -> dict[str, int]:
    """Of each device: the blocks of denoisers that are there, and the bias where the first one is."""
    return {
        device.name: sum(
            branches * ((one.stop - one.first) * (OF_PAST + OF_TEXT) + (0 if one.first else BIAS))
            for one in device.segments
            if one.component.startswith("denoiser")
        )
        for device in plan.devices
    }


def test_on_one_device_it_is_all_there(costs: VideoCosts) -> None:
    plan, sessions = planned(costs, cluster("h200", 1), experts="resident")
    whole = EXPERTS * BRANCHES * (BLOCKS * (OF_PAST + OF_TEXT) + BIAS)
    assert list(sessions.bytes_per_session.values()) == [whole] == list(by_hand(plan).values())


@pytest.mark.parametrize("experts", ["resident", "apart"])
def test_on_two_devices_the_past_of_a_block_lies_with_it(costs: VideoCosts, experts: Experts) -> None:
    plan, sessions = planned(
        costs, cluster("a100-80g", 2), experts=experts, branches="serial", stages=2, ulysses=1, replicas=1
    )
    assert len(plan.devices) == 2
    assert sessions.bytes_per_session == by_hand(plan)
    assert sum(sessions.bytes_per_session.values()) == EXPERTS * BRANCHES * (BLOCKS * (OF_PAST + OF_TEXT) + BIAS)


def test_the_tightest_device_decides(costs: VideoCosts) -> None:
    """One more than have room would not fit there, and would on the other one, which has more memory."""
    one = pool("a100-80g", 1)
    small = replace(one, device=replace(one.device, kind="small", memory=60 * 10**9))
    plan, sessions = planned(
        costs, machines(one, small), experts="apart", branches="serial", stages=2, ulysses=1, replicas=1
    )
    assert sessions.fit == min(sessions.fit_by_device.values()) < max(sessions.fit_by_device.values())
    for device in plan.devices:
        kept, fit = sessions.bytes_per_session[device.name], sessions.fit_by_device[device.name]
        peak = max(device.peak_bytes.values())  # with one video
        assert peak + (fit - 1) * kept <= device.memory < peak + fit * kept


def test_branches_on_devices_of_their_own_keep_their_own_past(costs: VideoCosts) -> None:
    plan, sessions = planned(
        costs, cluster("h200", 2), experts="resident", branches="parallel", stages=1, ulysses=1, replicas=1
    )
    assert sessions.bytes_per_session == by_hand(plan, branches=1) and len(set(by_hand(plan).values())) == 1


def test_copies_have_videos_of_their_own(costs: VideoCosts) -> None:
    options = {"objective": "throughput", "requests": 2, "experts": "resident", "branches": "serial"}
    _, one = planned(costs, cluster("h200", 1), experts="resident", branches="serial")
    plan, two = planned(costs, cluster("h200", 2), replicas=2, **options)
    assert plan.replicas == 2 and two.fit == 2 * one.fit


def test_videos_in_flight_are_in_the_plan_already(costs: VideoCosts) -> None:
    """However many were planned for, as many find room, but for what waits between two devices."""
    free = {"experts": "resident", "branches": "serial", "stages": 2, "ulysses": 1, "replicas": 1}
    _, one = planned(costs, cluster("h200", 2), **free)
    _, three = planned(costs, cluster("h200", 2), objective="throughput", requests=3, **free)
    assert 0 <= one.fit - three.fit <= 1


@pytest.mark.parametrize("mode", ["swap", "stream"])
def test_who_takes_turns_keeps_the_past_of_both(costs: VideoCosts, mode: Experts) -> None:
    """Of a model that looks back at nothing the second one needs none of what the first had."""
    causal, other = (row_of(one, mode, BRANCHES, 1, encodes=False, decodes=False) for one in (costs, PLAIN))
    assert {part.kept for part in causal.parts[1:]} == {EXPERTS * (OF_PAST + OF_TEXT)}
    assert {part.kept for part in other.parts[1:]} == {OF_TEXT}


def test_a_slot_too_few_is_seen(costs: VideoCosts) -> None:
    """A planted fault."""
    slot = OF_PAST // (CACHE.window + CACHE.sink)

    def fewer(expert: ComponentCosts) -> ComponentCosts:
        return replace(expert, parts=tuple(replace(part, kept=part.kept - slot) for part in expert.parts))

    small = replace(costs, experts=tuple(map(fewer, costs.experts)))
    plan, sessions = planned(small, cluster("h200", 1), experts="resident")
    assert sessions.bytes_per_session != by_hand(plan)
