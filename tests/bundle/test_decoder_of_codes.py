"""A whole bundle of tiny-wan whose decoder is in INT8: what it holds, what its check has found, and what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.tiny_wan.comparison import IDENTICAL_DB, psnr
from scripts.vae_decoder_tiny_wan import frames
from wanc.compiler.pipeline import BuildResult, build
from wanc.recipe.load import load
from wanc.runtime.decode import FIRST, STEADY
from wanc.runtime.model import DECODER
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SETTINGS = (
    "name=decoder-of-codes",
    "engine.kind=openvino",
    "quantize.vae_decoder=int8",
    "quantize.calibrate.clips=2",
    "sampling.steps=4",
)
LEAST_PSNR_DB = 33.0


@pytest.fixture(scope="module")
def int8(tiny_bundle: Path, tiny_recipe: Path) -> BuildResult:
    """A build beside `tiny_bundle`, whose graphs it takes from the store."""
    prompts = tiny_recipe.with_name("prompts") / "tiny-wan-calibrate.txt"
    (loaded,) = load(tiny_recipe, [*SETTINGS, f"quantize.calibrate.prompts={prompts}"])
    return build(loaded, tiny_bundle.parents[1], progress=False)


def test_the_decoder_is_quantised_behind_all_else(int8: BuildResult) -> None:
    labels = [run.name for run in int8.stages]
    assert labels[3:6] == ["texts", "calibrate", "quantize"]
    assert verify(int8.bundle).ok
    assert [path.name for path in (int8.bundle / "quantization").iterdir()] == [f"{DECODER}.json"]


@pytest.mark.parametrize("graph", [FIRST, STEADY])
def test_it_is_compared_in_two_halves_on_states_that_there_are(int8: BuildResult, graph: str) -> None:
    manifest = json.loads((int8.bundle / "manifest.json").read_bytes())
    found = manifest["check"]["graphs"][f"{DECODER}/{graph}"]
    assert found["compared"] == {"graph": "float32", "program": "integer convolutions", "engine": "quantised"}
    for trial in found["trials"]:
        errors = trial.get("errors", {})
        assert errors.get("graph", 0) < 1e-4 and errors.get("program", 0) < 0.1 and errors.get("engine", 0) < 0.3


def test_what_it_shows_is_nearly_the_same(int8: BuildResult, tiny_bundle: Path) -> None:
    floats, codes = (Pipeline.open(bundle, threads=1) for bundle in (tiny_bundle, int8.bundle))
    latents = floats.generate("A blue square moves down.", seed=5, steps=4).latents
    found = psnr(*(frames(one, latents) for one in (floats, codes)))
    assert LEAST_PSNR_DB < found < IDENTICAL_DB
