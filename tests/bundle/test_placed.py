"""A bundle for two processors: built where the plan puts its model, run at once, and shown beside the plan."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from wanc.recipe.load import load
from wanc.runtime.api import open as open_bundle
from wanc.runtime.errors import UserError
from wanc.runtime.manifest import Manifest

from ..conftest import Wanc
from .conftest import MakeVariant, Variant

TWO = "partition.devices=[{kind: cpu, count: 2}]"
PROMPTS = ["A red circle moves to the left.", "一个蓝色的正方形向上移动。", "A green square moves right."]
SET = ("--set", TWO, "--set", "partition.objective=throughput")


@pytest.fixture(scope="module")
def placed(variant: MakeVariant) -> Variant:
    return variant("placed", TWO, "partition.objective=throughput")


@pytest.mark.slow
def test_a_bundle_lies_where_the_plan_puts_it(
    placed: Variant, tiny_recipe: Path, tiny_bundle: Path, wanc: Wanc
) -> None:
    planned = json.loads(wanc("plan", tiny_recipe, *SET, "--json").out)
    expected = {
        (segment["component"], device["name"]) for device in planned["devices"] for segment in device["segments"]
    }
    engines = Manifest.read(placed.root).topology["engines"]
    assert isinstance(engines, list)
    assert {(entry["component"], entry["device"]) for entry in engines} == expected  # type: ignore[index, call-overload]
    assert {device for _, device in expected} == {"cpu.0", "cpu.1"}
    alone, pipelined = (
        open_bundle(root, threads=1).generate(PROMPTS[0], seed=3, steps=4) for root in (tiny_bundle, placed.root)
    )
    np.testing.assert_array_equal(pipelined.frames, alone.frames)


@pytest.mark.slow
def test_a_run_is_shown_beside_the_plan(placed: Variant, tiny_recipe: Path, tmp_path: Path, wanc: Wanc) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS), "utf-8")
    wanc("run", placed.root, "--prompts", prompts, "--trace", tmp_path / "run.json", "-o", tmp_path / "videos")
    shown = wanc("plan", tiny_recipe, *SET, "--trace", tmp_path / "run.json", "-o", tmp_path / "pictures")
    assert "the plan beside a run" in shown.out
    (picture,) = (tmp_path / "pictures").glob("*.beside.svg")
    texts = [element.text or "" for element in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("cpu.0") == texts.count("cpu.1") == 2
    assert sum("predicted, not measured" in text for text in texts) == 1
    assert sum("measured, from the trace of a run" in text for text in texts) == 1


@pytest.mark.parametrize(
    ("given", "where", "hint"),
    [
        ("partition.replicas=2", "partition.replicas", "set it to 1"),
        ("partition.branches=parallel", "partition.branches", "set it to serial"),
        ("partition.cut=2", "partition.cut", "remove it"),
        ("runtime.budgets={device: 1GiB}", "runtime.budgets", "remove it"),
    ],
)
def test_what_no_processors_run_is_refused_at_its_place(tiny_recipe: Path, given: str, where: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        list(load(tiny_recipe, [TWO, "partition.objective=throughput", given]))
    assert where.split(".")[-1] in str(caught.value) and hint in str(caught.value.hint)
