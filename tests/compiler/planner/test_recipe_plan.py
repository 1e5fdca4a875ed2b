"""`wanc plan` on every recipe that ships, as people and programs meet it: in seconds, without torch and weights."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from wanc.compiler.planner.recipe_plan import in_store, plan_recipe
from wanc.errors import RecipeError
from wanc.folders import Folders
from wanc.recipe.load import load

from ...conftest import Wanc
from .counted import A14B, PROJECT, sparse

RECIPES = PROJECT / "recipes"
LARGE = ("bf16", "int8", "fp8")
MACHINES = {"1xh100", "4xa100", "2xrtx4090", "1xrtx5090", "8xh200"}
PHASES = {"encode", "denoise_high", "denoise_low", "decode"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sparse(A14B, tmp_path_factory.mktemp("checkpoints"))


def planned(recipe: str, root: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    """What programs read of each variant; nothing may have to be traced."""

    def traced(*_: object) -> Any:
        raise AssertionError("a survey of this model should ship")

    found = load(RECIPES / f"{recipe}.yaml", [f"model.source={root}", *overrides])
    return {str(entry.variant): plan_recipe(entry, traced).as_json() for entry in found}


@pytest.mark.parametrize(
    "precision", [LARGE[0], *(pytest.param(precision, marks=pytest.mark.slow) for precision in LARGE[1:])]
)
def test_every_machine_of_a_recipe_is_planned(root: Path, precision: str) -> None:
    plans = planned(f"{A14B}-{precision}", root)
    assert plans.keys() == MACHINES - ({"4xa100"} if precision == "fp8" else set())
    for plan in plans.values():
        assert plan["predicted"] is True
        for size in plan["shapes"].values():
            assert size["video_seconds"] > size["step_seconds"] > 0
            assert all(device["peak_bytes"].keys() == PHASES for device in size["devices"])
            assert all(max(device["peak_bytes"].values()) <= device["memory"] for device in size["devices"])
            assert all(device["segments"] for device in size["devices"]), "a device has nothing to do"
            assert {"rss_bytes", "disk_bytes", "seconds"} <= size["build"].keys()


def test_all_blocks_of_every_component_are_somewhere(root: Path) -> None:
    for plan in planned(f"{A14B}-int8", root).values():
        covered: dict[str, set[int]] = {}
        for device in plan["devices"]:
            for one in device["segments"]:
                covered.setdefault(one["component"], set()).update(range(one["first"], one["stop"]))
        counts = {name: len(blocks) for name, blocks in covered.items()}
        assert counts["denoiser_high"] == counts["denoiser_low"] == 40
        assert counts["vae_decoder"] == 5
        assert counts.get("text_encoder", 24) == 24, "it is whole, or the host's"


def test_the_benchmark_stands_beside_what_others_have_published(root: Path) -> None:
    plans = planned("mlperf-wan2.2", root)
    for plan in plans.values():
        published = {(entry["kind"], entry["count"]): entry["seconds"] for entry in plan["published"]}
        assert published == {("h200", 8): 57.4, ("b200", 8): 25.5, ("mi355x", 8): 16.1}
    assert plans["8xb200"]["video_seconds"] < plans["8xh200"]["video_seconds"]


def test_one_set_of_engines_serves_all_sizes(root: Path) -> None:
    (plan,) = planned(A14B, root, "engine.kind=tensorrt", "precision.compute=bf16", FOUR).values()
    large, small = plan["shapes"]["720p"], plan["shapes"]["480p"]
    for key in ("style", "experts", "branches", "replicas"):
        assert large[key] == small[key]


FOUR = "partition.devices=[{kind: a100-80g, count: 4, link: nvlink}]"
TINY = ("engine.kind=tensorrt-rtx", "precision.compute=bf16")
REFUSED = {
    "partition.tensor_parallel=2": "all-reduce",
    "partition.devices=[{kind: a100-80g, count: 0}]": "at least 1",
    "partition.devices=[]": "at least 1",
    "partition.devices=[{kind: rtx4090}, {kind: rtx4090}]": "the same devices",
    "partition.devices=[{kind: gtx1080}]": "no kind of device",
    "partition.devices=[{kind: rtx4090, link: nvlink}]": "no NVLink",
    "partition.devices=[{kind: h100}]": "h100 executes engines for sm90, and none is built",
    "partition.kinds={my-card: {memory: 1e9}}": "is like none",
}


@pytest.mark.parametrize("change", REFUSED)
def test_impossible_partitions_are_refused_in_words(change: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=REFUSED[change]) as caught:
        (loaded,) = load(RECIPES / "tiny-wan.yaml", [*TINY, "engine.targets=[sm89]", change])
        plan_recipe(loaded, in_store(Folders.chosen(tmp_path), progress=False))
    assert caught.value.hint


def test_ulysses_on_three_cards_is_refused_by_the_number_of_heads(root: Path) -> None:
    three = FOUR.replace("4", "3")
    with pytest.raises(RecipeError, match="40 heads of attention cannot be divided by 3"):
        planned(A14B, root, "engine.kind=tensorrt", "precision.compute=bf16", three, "partition.ulysses=3")


def test_a_kind_of_its_own_is_planned_with_what_the_recipe_says(root: Path) -> None:
    kinds = "partition.kinds={half-h100: {like: h100, memory: 50000000000, efficiencies: {bf16: 0.5}}}"
    given = ("engine.kind=tensorrt", "precision.compute=bf16", kinds, "partition.devices=[{kind: half-h100, count: 2}]")
    (plan,) = planned(A14B, root, *given).values()
    assert {device["memory"] for device in plan["devices"]} == {50_000_000_000}
    assert plan["efficiencies"]["half-h100"]["bf16"]["value"] == 0.5


def test_the_command_shows_it_in_seconds(wanc: Wanc, root: Path, tmp_path: Path) -> None:
    recipe, out = str(RECIPES / f"{A14B}-int8.yaml"), tmp_path / "charts"
    given = ("--set", f"model.source={root}", "--variant", "4xa100", "-o", str(out))
    started = time.process_time()
    finished = wanc("plan", recipe, *given)
    assert finished.code == 0, finished.err
    for said in ("predicted, not measured", "videos/h", "peak memory by phase", "beside published times", "8-bit"):
        assert said in finished.out
    assert time.process_time() - started < 30
    for size in ("480p", "720p"):
        name = f"{A14B}-int8-4xa100.{size}"
        assert ElementTree.parse(out / f"{name}.svg").getroot().tag.endswith("svg")
        assert json.loads((out / f"{name}.trace.json").read_text())["traceEvents"]


def test_programs_read_a_plan_as_they_were_promised(wanc: Wanc, root: Path) -> None:
    recipe = str(RECIPES / f"{A14B}-bf16.yaml")
    finished = wanc("plan", recipe, "--set", f"model.source={root}", "--variant", "1xh100", "--json")
    (plan,) = json.loads(finished.out)
    promised = {"devices", "step_seconds", "video_seconds", "throughput_vs_one", "bubble_share", "attention_share"}
    assert promised | {"build", "predicted"} <= plan.keys()
    assert {"name", "segments", "peak_bytes"} <= plan["devices"][0].keys()
