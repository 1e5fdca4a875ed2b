"""tiny-wan in INT8, built from its recipe with few clips: what runs, what comes out, and that it comes out again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from wanc.artifacts.store import Store
from wanc.compiler.pipeline import BuildResult, build, differences
from wanc.compiler.program import ENGINE_REPORT
from wanc.recipe import load
from wanc.recipe.load import LoadedRecipe
from wanc.runtime.model import HIGH, LOW
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.verify import verify

from .fusing import relative_error

FEW = ("quantize.calibrate.clips=2", "quantize.calibrate.timestep_bins=2", "sampling.steps=6")
QUANTISING = ["texts", "calibrate", "quantize", "calibrate", "quantize"]
STAGES = ["resolve", "export", "fuse", *QUANTISING, "engine", "tables", "seal"]
STEPS = 8
# Eight steps of a model whose Linears are off by 1 % each; a fault of a scale gives another picture, off by 1.
MOST_LATENT_ERROR = 0.15


@pytest.fixture(scope="module")
def loaded() -> LoadedRecipe:
    (loaded,) = load(ROOT / "recipes" / "tiny-wan-int8.yaml", ["name=tiny-wan-int8-few", *FEW])
    return loaded


@pytest.fixture(scope="module")
def result(tiny_bundle: Path, loaded: LoadedRecipe) -> BuildResult:
    """Built beside `tiny_bundle`, whose graphs it takes from the store."""
    return build(loaded, tiny_bundle.parents[1], progress=False)


def test_the_stages_of_a_build(result: BuildResult) -> None:
    """Graphs are those of the recipe that does not quantise."""
    assert [run.name for run in result.stages] == STAGES
    assert all(run.cached for run in result.stages[1:3])
    assert verify(result.bundle).ok


def test_a_second_build_computes_nothing(result: BuildResult, tiny_bundle: Path, loaded: LoadedRecipe) -> None:
    again = build(loaded, tiny_bundle.parents[1], progress=False)
    assert again.id == result.id
    assert [run.name for run in again.stages if not run.cached] == ["resolve"]


def test_the_video_is_nearly_the_same(result: BuildResult, tiny_bundle: Path) -> None:
    latents = [
        Pipeline.open(root).generate("A red circle moves to the left.", seed=1, steps=STEPS, frames=5).latents
        for root in (result.bundle, tiny_bundle)
    ]
    assert 1e-4 < relative_error(*latents) < MOST_LATENT_ERROR


@pytest.mark.parametrize("component", [HIGH, LOW])
def test_its_linears_are_integer_kernels(result: BuildResult, component: str) -> None:
    """Of five blocks ten Linears each: the keys and values of the prompt lie in a part of their own."""
    report = json.loads((result.bundle / ENGINE_REPORT).read_bytes())["components"][component]
    kernels = {graph: entry["kernels"].get("MatMulIntegerToFloat", {}) for graph, entry in report.items()}
    assert kernels == {"request": {"float": 10}, "shape": {}, "step": {"float": 40}, "time": {}}


def test_it_comes_out_again_bit_by_bit(
    result: BuildResult, tiny_bundle: Path, loaded: LoadedRecipe, tmp_path: Path
) -> None:
    """From the same graphs, in a store that knows nothing of what became of them."""
    shutil.copytree(tiny_bundle.parents[1] / "store", tmp_path / "store")
    store = Store.open(tmp_path / "store")
    for record in store.records():
        if record.stage not in ("export", "fuse"):
            (store.root / "actions" / f"{record.key}.json").unlink()
    again = build(loaded, tmp_path, progress=False)
    assert [run.name for run in again.stages if run.cached] == ["export", "fuse"]
    assert differences(result.bundle, again.bundle) == []
    assert list((store.root / "scratch").iterdir()) == []
