"""Whole plans of Wan2.2-T2V-A14B: what they promise, what they compare, what they say when nothing fits."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace

import pytest

from wanc.compiler.planner.cluster import Cluster, Pool
from wanc.compiler.planner.fit import one_device_seconds
from wanc.compiler.planner.known_devices import DEVICES
from wanc.compiler.planner.links import LINKS
from wanc.compiler.planner.options import PlanOptions
from wanc.compiler.planner.plan import Plan, plan_video
from wanc.compiler.planner.profile import Profile
from wanc.errors import RecipeError

from .clusters import cluster, machines, pool
from .counted import a14b

GIB = 2**30
INT8 = ("int8", a14b(linears="int8", decoder="bf16"))


@pytest.mark.parametrize("requests", [3, 4, 6, 8])
@pytest.mark.parametrize("size", ["480p", "720p"])
def test_four_cards_give_at_least_3_6_times_one_with_both_experts_resident(size: str, requests: int) -> None:
    plan = plan_video(
        a14b(size), cluster("a100-80g", 4), PlanOptions("throughput", requests, experts="resident", compare=False)
    )
    assert plan.throughput_vs_one >= 3.6
    assert plan.one_device_seconds == one_device_seconds(a14b(size), DEVICES["a100-80g"])


@pytest.mark.parametrize("requests", [3, 4, 6, 8])
@pytest.mark.parametrize("size", ["480p", "720p"])
def test_so_does_a_pipeline_alone(size: str, requests: int) -> None:
    pipeline = PlanOptions("throughput", requests, experts="resident", replicas=1, ulysses=1, compare=False)
    plan = plan_video(a14b(size), cluster("a100-80g", 4), pipeline)
    assert plan.style == "pipeline"
    assert plan.throughput_vs_one >= 3.6
    # The schedule that shows it: no device waits for long.
    assert plan.bubble_share < 0.1
    assert all(device.share > 0.85 for device in plan.devices)
    # Few requests that begin and end with empty devices take longer, by the filling and the emptying.
    assert 2 / plan.one_device_seconds < plan.finite_throughput < plan.throughput


def value(plan: Plan) -> float:
    """What is to be large."""
    return plan.throughput if plan.objective == "throughput" else 1 / plan.video_seconds


@pytest.mark.parametrize("objective", ["latency", "throughput"])
@pytest.mark.parametrize("link", ["nvlink", "pcie"])
@pytest.mark.parametrize("count", [2, 4, 5, 8])
def test_the_plan_is_never_worse_than_ulysses_or_a_pipeline(count: int, link: str, objective: str) -> None:
    options = PlanOptions("throughput" if objective == "throughput" else "latency", 3, compare=False)
    devices = cluster("a100-80g", count, link)
    chosen = value(plan_video(a14b(), devices, options))
    pinned = [replace(options, ulysses=ranks, replicas=1, branches="serial") for ranks in (1, count)]
    for one in pinned:
        assert chosen >= value(plan_video(a14b(), devices, one)) * (1 - 1e-9)


def test_a_pipeline_of_groups_beats_both_where_links_are_slow_and_requests_few() -> None:
    devices = cluster("a100-80g", 8, "ethernet")
    options = PlanOptions("throughput", 3, replicas=1, branches="serial", compare=False)
    both = value(plan_video(a14b(), devices, options))
    pure = [value(plan_video(a14b(), devices, replace(options, ulysses=ranks))) for ranks in (1, 8)]
    assert both >= 1.05 * max(pure)


def test_two_machines_split_tokens_inside_and_blocks_between() -> None:
    devices = machines(pool("a100-80g", 4), pool("a100-80g", 4))
    plan = plan_video(a14b(), devices, PlanOptions("throughput", 2, replicas=1, branches="serial"))
    assert plan.style == "both"
    assert {one.link for one in plan.transfers if one.what == "exchange"} == {"nvlink"}
    assert {one.link for one in plan.transfers if one.what == "activations"} == {"ethernet"}


def test_every_part_is_on_one_group_of_each_copy_and_every_device_fits() -> None:
    costs = a14b()
    plan = plan_video(costs, cluster("a100-80g", 8), PlanOptions("throughput", 4))
    parts: dict[tuple[int, str], list[int]] = defaultdict(list)
    for device in plan.devices:
        assert max(device.peak_bytes.values()) <= device.memory
        for segment in device.segments:
            parts[device.replica, segment.component] += range(segment.first, segment.stop)
    assert len(plan.devices) == len({device.name for device in plan.devices}) == 8
    for replica in range(plan.replicas):
        for component in (costs.text_encoder, *costs.experts, costs.decoder):
            assert set(parts[replica, component.name]) == set(range(len(component.parts)))


def test_the_two_experts_on_devices_of_their_own_share_none() -> None:
    plan = plan_video(a14b(), cluster("a100-80g", 8), PlanOptions("throughput", 4, experts="apart", replicas=1))
    for device in plan.devices:
        assert len({one.component for one in device.segments if one.component.startswith("denoiser")}) == 1


def test_swapping_costs_a_copy_of_the_weights_once_a_video() -> None:
    device = DEVICES["a100-80g"]
    plans = [plan_video(a14b(), cluster("a100-80g", 1), PlanOptions(experts=mode)) for mode in ("resident", "swap")]
    copied = a14b().experts[0].weights / device.host_link
    assert plans[1].video_seconds - plans[0].video_seconds == pytest.approx(copied)
    assert max(plans[1].devices[0].peak_bytes.values()) < max(plans[0].devices[0].peak_bytes.values())
    assert plans[1].step_seconds == pytest.approx(plans[0].step_seconds)


def test_a_card_that_is_too_small_for_an_expert_streams_it() -> None:
    options = PlanOptions(offload_text_encoder=True)
    plan = plan_video(a14b(linears="bf16"), cluster("rtx4090", 1, "pcie"), options)
    assert plan.experts == "stream"
    assert max(plan.devices[0].peak_bytes.values()) <= DEVICES["rtx4090"].memory
    assert not plan.one_device_fits


def test_unequal_devices_get_what_they_can_bear() -> None:
    devices = machines(pool("h100", 1), pool("a100-80g", 1), between="infiniband")
    plan = plan_video(a14b(), devices, PlanOptions("throughput", 4, replicas=1, branches="serial", experts="resident"))
    blocks = {
        one.kind: sum(each.stop - each.first for each in one.segments if each.component == "denoiser_high")
        for one in plan.devices
    }
    assert blocks["h100"] > 1.5 * blocks["a100-80g"]
    assert plan.one_device_kind == "h100"
    assert plan.throughput_vs_one > 1.3


def test_figures_of_the_model_are_those_that_are_known() -> None:
    plans = {size: plan_video(a14b(size), cluster("a100-80g", 1), PlanOptions()) for size in ("480p", "720p")}
    assert plans["480p"].eight_bit_bound == pytest.approx(1.31, abs=0.01)
    assert plans["720p"].eight_bit_bound == pytest.approx(1.16, abs=0.01)
    assert plans["720p"].attention_share == pytest.approx(0.72, abs=0.01)


def test_what_programs_read_is_json() -> None:
    plan = plan_video(a14b(), cluster("a100-80g", 4), PlanOptions("throughput", 3))
    read = json.loads(json.dumps(plan.as_json()))
    assert read["predicted"] is True
    assert read["throughput_vs_one"] == plan.throughput_vs_one
    assert {"name", "kind", "segments", "peak_bytes", "share"} <= set(read["devices"][0])
    assert {"component", "first", "stop"} == set(read["devices"][0]["segments"][0])
    assert {"encode", "denoise_high", "denoise_low", "decode"} == set(read["devices"][0]["peak_bytes"])
    for name in ("step_seconds", "video_seconds", "bubble_share", "attention_share"):
        assert read[name] >= 0
    styles = {(one["link"], one["style"]) for one in read["alternatives"]}
    assert {("nvlink", "pipeline"), ("pcie", "ulysses"), ("ethernet", "both")} <= styles


def test_measured_efficiencies_take_the_place_of_fitted_ones_and_are_called_so() -> None:
    profile = Profile("a100-80g", "a machine", {"bf16": 0.29 * 312e12})
    measured = profile.applied(DEVICES["a100-80g"])
    plan = plan_video(a14b(), Cluster.of([Pool(measured, 1, LINKS["pcie-gen4"])]), PlanOptions())
    efficiency = plan.efficiencies["a100-80g"]["bf16"]
    assert (efficiency.value, efficiency.source) == (pytest.approx(0.29), "measured on a machine")
    assert plan.video_seconds > 1500


def test_what_an_engine_was_found_to_need_takes_the_place_of_what_was_counted() -> None:
    measured = PlanOptions(activations={"denoiser_high": GIB, "denoiser_low": GIB, "vae_decoder": GIB})
    plans = [plan_video(a14b(), cluster("a100-80g", 1), options) for options in (PlanOptions(), measured)]
    assert max(plans[1].devices[0].peak_bytes.values()) < max(plans[0].devices[0].peak_bytes.values()) - 6 * GIB


@pytest.mark.parametrize(
    ("options", "said", "hinted"),
    [
        (PlanOptions(tensor_parallel=2), "all-reduce", "ulysses"),
        (PlanOptions(ulysses=3), "40 heads of attention cannot be divided by 3", "1, 2, 4, 5, 8, 10, 20"),
        (PlanOptions(ulysses=40), "2 are needed", "20"),
        (PlanOptions(requests=0), "requests is 0", "above 0"),
        (PlanOptions(replicas=2), "some would never work", "throughput"),
        (PlanOptions(stages=7), "cannot all be used", "stages"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(options: PlanOptions, said: str, hinted: str) -> None:
    with pytest.raises(RecipeError, match=said) as refused:
        plan_video(a14b(), cluster("a100-80g", 3), options)
    assert refused.value.hint is not None
    assert hinted in refused.value.hint


def test_three_cards_are_a_pipeline() -> None:
    plan = plan_video(a14b(), cluster("a100-80g", 3), PlanOptions("throughput", 4, replicas=1))
    assert plan.style == "pipeline"


def test_devices_for_which_there_is_no_block_have_to_be_allowed_to_idle() -> None:
    few = replace(a14b(), experts=tuple(replace(one, parts=one.parts[:1]) for one in a14b().experts))
    options = PlanOptions("throughput", 2, replicas=1, branches="serial", ulysses=1, experts="resident")
    with pytest.raises(RecipeError, match="cannot all be used") as refused:
        plan_video(few, cluster("a100-80g", 4), options)
    assert "allow_idle" in str(refused.value.hint)
    assert plan_video(few, cluster("a100-80g", 4), replace(options, allow_idle=True)).bubble_share > 0.2


@pytest.mark.parametrize(
    ("kind", "count", "options", "hinted"),
    [
        ("l40s", 1, PlanOptions(experts="resident"), "`experts: swap`"),
        ("rtx4090", 4, PlanOptions("throughput", 4, experts="swap", replicas=4), "cut over all 4 devices"),
        ("rtx4090", 1, PlanOptions(experts="swap", offload_text_encoder=True, lighter=INT8), "int8 weights"),
        ("rtx4090", 1, PlanOptions(experts="swap", offload_text_encoder=True), "one more rtx4090"),
        ("rtx4090", 1, PlanOptions(experts="resident", replicas=1, branches="serial"), "no single change"),
    ],
)
def test_who_has_too_little_memory_is_told_how_much_and_what_would_help(
    kind: str, count: int, options: PlanOptions, hinted: str
) -> None:
    with pytest.raises(RecipeError, match=rf"{kind}\.\d lacks [\d.]+ GiB") as refused:
        plan_video(a14b(decoder="bf16"), cluster(kind, count, "pcie"), options)
    assert hinted in str(refused.value.hint)


def test_a_model_with_one_expert_and_one_branch_is_planned_too() -> None:
    one = replace(a14b(), experts=(replace(a14b().experts[0], executions=4, branches=1),))
    plan = plan_video(one, cluster("a100-80g", 4), PlanOptions("throughput", 4))
    assert plan.throughput_vs_one > 3
    with pytest.raises(RecipeError, match="needs two experts"):
        plan_video(one, cluster("a100-80g", 4), PlanOptions(experts="swap"))
    with pytest.raises(RecipeError, match="one guidance branch"):
        plan_video(one, cluster("a100-80g", 4), PlanOptions(branches="parallel"))
