"""A model within a budget of memory: how it is cut, what each phase takes, and what is least."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wanc.compiler.planner.costs import ComponentCosts, Kernel, PartCosts, VideoCosts
from wanc.compiler.planner.resident import (
    CACHED,
    OPENVINO_KERNELS,
    VideoMemory,
    opened_bytes,
    opening_bytes,
    resident,
    segment_bounds,
)
from wanc.words import EngineKind

from ...conftest import Wanc

MIB = 2**20


def component(name: str, blocks: int, weights: int, activation: int, kept: int = 0) -> ComponentCosts:
    kernel = Kernel("linear", "fp32", 0, 0, weights // 2)
    part = PartCosts("block", (kernel, kernel), weights, activation, leaves=0, kept=kept)
    return ComponentCosts(name, (part,) * blocks, executions=4, branches=2)


def video(blocks: int = 10, weights: int = 100, activation: int = 10) -> VideoMemory:
    experts = tuple(component(f"denoiser_{end}", blocks, weights, activation, kept=3) for end in ("high", "low"))
    text_encoder, decoder = component("text_encoder", 2, weights, 1), component("vae_decoder", 3, weights // 2, 20)
    return VideoMemory(VideoCosts("any", text_encoder, experts, decoder), decoding=20)


def test_what_fits_is_not_cut() -> None:
    costs = video()
    whole = {"text_encoder": [(0, 2)], "denoiser_high": [(0, 10)], "denoiser_low": [(0, 10)], "vae_decoder": [(0, 3)]}
    needed = resident(costs, whole, 0, "onnxruntime").whole
    assert segment_bounds([costs], needed, "onnxruntime") == whole
    assert segment_bounds([costs], needed - 1, "onnxruntime") != whole


def test_phases_are_counted() -> None:
    costs = video()
    found = resident(costs, segment_bounds([costs], 10**6, "onnxruntime"), 10**6, "onnxruntime")
    denoise, decode = found.phases["denoise"], found.phases["decode"]
    assert denoise.values == 10 * 3 * 2 + 10, "keys and values of both branches, and what a block computes"
    assert denoise.weights == 2 * 1000
    assert denoise.least == denoise.values + 1000 + 50, "a whole expert, with one weight twice"
    assert decode.weights == 2 * 150, "the first latent frame has a graph of its own"
    assert found.whole == 200 + 2000 + 300 + denoise.values


def test_openvino_has_the_whole_file_beside_what_it_packs() -> None:
    (expert, _) = video().costs.experts
    assert opening_bytes(expert, 0, 2, "onnxruntime") == 200 + 50
    assert opening_bytes(expert, 0, 2, "openvino") == 2 * OPENVINO_KERNELS + 200 + 200


@pytest.mark.parametrize(("keys", "kept"), [(CACHED, 0), (CACHED + 2, 2 * (CACHED + 2))])
def test_openvino_keeps_the_largest_keys_and_values_of_each_segment(keys: int, kept: int) -> None:
    """Of two heads, if one of them has more than a cache takes; queries and results are as many."""
    attentions = [Kernel("attention", "bf16", 0, 2 * 2 * size) for size in (8, keys)]
    part = PartCosts("block", (*attentions, Kernel("linear", "bf16", 0, 10**9)), 100, 0, leaves=0)
    expert = ComponentCosts("denoiser_high", (part,) * 3, executions=4, heads=2)
    assert opened_bytes(expert, 0, 3, "openvino") == 3 * OPENVINO_KERNELS + 300 + kept
    assert opened_bytes(expert, 0, 3, "onnxruntime") == 300


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(8, 200), st.integers(0, 50), st.integers(1, 5000), st.data())
def test_segments_are_whole_and_what_is_least_is_the_same_whatever_the_budget(
    blocks: int, weights: int, activation: int, budget: int, data: st.DataObject
) -> None:
    kind: EngineKind = data.draw(st.sampled_from(["onnxruntime", "openvino"]))
    costs = video(blocks, weights, activation)
    bounds = segment_bounds([costs], budget, kind)
    for one in costs.costs.components:
        pairs = bounds[one.name]
        assert [first for first, _ in pairs] == [0, *(stop for _, stop in pairs[:-1])]
        assert pairs[-1][1] == len(one.parts) and all(first < stop for first, stop in pairs)
    found = resident(costs, bounds, budget, kind)
    at_blocks = {one.name: [(index, index + 1) for index in range(len(one.parts))] for one in costs.costs.components}
    least = resident(costs, at_blocks, budget, kind).least
    assert found.least >= least
    if budget >= least:
        assert found.least <= budget, "cut far enough to fit, where that is possible at all"


def test_a_plan_says_what_a_budget_takes(wanc: Wanc, tiny_recipe: Path) -> None:
    budget = "runtime.budgets.device=160MiB"
    done = wanc("plan", tiny_recipe, "--set", budget, "--json")
    assert done.code == 0, done.err
    size: dict[str, Any] = json.loads(done.out)["shapes"]["64p"]["budget"]
    assert size["budget"] == 160 * MIB and size["least"] < size["whole"] < size["budget"]
    assert size["phases"].keys() == {"text", "denoise", "decode"}
    assert all(phase["least"] <= phase["peak"] <= 160 * MIB for phase in size["phases"].values())
    assert "within a budget of 160.0 MiB" in wanc("plan", tiny_recipe, "--set", budget).out


@pytest.mark.parametrize("cut", ["none", "blocks"])
def test_a_budget_that_is_too_small_is_refused_before_anything_is_built(
    wanc: Wanc, tiny_recipe: Path, tmp_path: Path, cut: str
) -> None:
    given = ("--set", "runtime.budgets.device=1MiB", "--set", f"partition.cut={cut}")
    done = wanc("build", tiny_recipe, *given, "-o", tmp_path)
    assert done.code == 2 and done.out == ""
    assert "--set runtime.budgets.device=1MiB: decoding 96p-wide" in done.err
    assert "more than there are" in done.err and "set runtime.budgets.device to at least" in done.err
    assert not (tmp_path / "bundles").exists()
