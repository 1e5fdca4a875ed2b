"""Whole bundles of tiny-wan whose text encoder is quantised: what they hold, and what their own reports say of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from wanc.compiler.engines.tensorrt_rtx.build import BINDINGS
from wanc.compiler.explain import explain, explain_tables
from wanc.compiler.pipeline import BuildResult, build
from wanc.compiler.program.quant_table import QuantTable, table_file
from wanc.recipe.load import load
from wanc.runtime.model import HIGH, TEXT_ENCODER
from wanc.runtime.pipeline import Pipeline
from wanc.runtime.verify import verify

from ..compiler.fusing import relative_error
from .conftest import RunPy

pytestmark = pytest.mark.timeout(3600)

FEW = ("quantize.calibrate.clips=2", "quantize.calibrate.timestep_bins=2", "sampling.steps=6")
PROMPT = "A red circle moves to the left."
LINEARS = 14
MOST_LATENT_ERROR = 0.2


def built(tiny_bundle: Path, recipe: Path, name: str, *overrides: str) -> BuildResult:
    """A build beside `tiny_bundle`, whose graphs it takes from the store."""
    (loaded,) = load(recipe, [f"name={name}", *overrides])
    return build(loaded, tiny_bundle.parents[1], progress=False)


def alone(tiny_bundle: Path, recipe: Path, name: str, *overrides: str) -> BuildResult:
    """The same of an encoder beside denoisers in float."""
    prompts = recipe.with_name("prompts") / "tiny-wan-calibrate.txt"
    return built(tiny_bundle, recipe, name, f"quantize.calibrate.prompts={prompts}", *overrides)


def checked(bundle: Path) -> dict[str, Any]:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    return manifest["check"]["graphs"][f"{TEXT_ENCODER}/encode"]


def reported(bundle: Path) -> dict[str, Any]:
    return json.loads((bundle / "engine_report.json").read_bytes())["components"][TEXT_ENCODER]["encode"]


@pytest.fixture(scope="module")
def int8(tiny_bundle: Path, tiny_recipe: Path) -> BuildResult:
    """The encoder, and the denoisers behind it."""
    recipe = tiny_recipe.with_name("tiny-wan-int8.yaml")
    return built(tiny_bundle, recipe, "tiny-wan-int8-text", "quantize.text_encoder=int8", *FEW)


@pytest.mark.slow
def test_the_encoder_is_quantised_before_all_that_is_told_by_it(int8: BuildResult) -> None:
    labels = [run.name for run in int8.stages]
    assert labels[3:9] == ["quantize", "texts", "calibrate", "quantize", "calibrate", "quantize"]
    assert verify(int8.bundle).ok
    tables = {path.name for path in (int8.bundle / "quantization").iterdir()}
    assert tables == {"text_encoder.json", "denoiser_high.json", "denoiser_low.json"}


@pytest.mark.slow
def test_it_is_compared_in_two_halves(int8: BuildResult) -> None:
    found = checked(int8.bundle)
    assert found["compared"] == {"graph": "float32", "program": "integer", "engine": "quantised"}
    errors = found["trials"][0]["errors"]
    assert errors["graph"] < 1e-5 and errors["program"] < 1e-5 and 1e-3 < errors["engine"] < 0.1
    assert reported(int8.bundle)["int8_linear_share"] == 1


@pytest.mark.slow
def test_explain_tells_of_it_first(int8: BuildResult, tiny_bundle: Path) -> None:
    told = explain("quantize", int8.stages, tiny_bundle.parents[1] / "store")
    assert next(iter(told)) == TEXT_ENCODER and HIGH in told
    tables = explain_tables("quantize", told)
    assert tables[0].title.startswith(
        f"text_encoder: {LINEARS} of {LINEARS} Linears quantised, 100.0% of their FLOPs; ptq"
    )
    assert "encoder.block.0.layer.1.DenseReluDense.wo" in [row[0] for row in tables[0].rows]


@pytest.mark.slow
def test_it_runs_and_its_video_is_nearly_the_same(int8: BuildResult, tiny_bundle: Path, run_py: RunPy) -> None:
    assert run_py(int8.bundle, "--selftest").code == 0
    latents = [
        Pipeline.open(root).generate(PROMPT, seed=1, steps=8, frames=5).latents for root in (int8.bundle, tiny_bundle)
    ]
    assert 1e-4 < relative_error(*latents) < MOST_LATENT_ERROR


@pytest.mark.parametrize(
    "scheme", [pytest.param("int8", marks=pytest.mark.slow), pytest.param("int8-weight", marks=pytest.mark.long)]
)
def test_openvino_in_bfloat16(tiny_bundle: Path, tiny_recipe: Path, scheme: str) -> None:
    """An encoder whose Linears all are codes: what is bfloat16 of it counts as that."""
    settings = ("engine.kind=openvino", "precision.compute=bf16", f"quantize.text_encoder={scheme}")
    result = alone(tiny_bundle, tiny_recipe, f"tiny-wan-text-{scheme}", *settings)
    assert [run.name for run in result.stages if run.name in ("quantize", "texts")] == ["quantize"]
    assert (reported(result.bundle)["precision"], checked(result.bundle)["compared"]["program"]) == ("half", "half")


@pytest.mark.long
@pytest.mark.skipif(importlib.util.find_spec(BINDINGS) is None, reason="TensorRT-RTX is not installed")
def test_tensorrt_rtx_multiplies_integers(tiny_bundle: Path, tiny_recipe: Path) -> None:
    """By the build's own log, Linear by Linear."""
    settings = ("engine.kind=tensorrt-rtx", "engine.targets=[sm89]", "precision.compute=bf16")
    result = alone(tiny_bundle, tiny_recipe, "tiny-wan-text-rtx", *settings, "quantize.text_encoder=int8")
    found, table = reported(result.bundle), QuantTable.read(result.bundle / table_file(TEXT_ENCODER))
    assert len(table.quantized) == LINEARS
    assert found["linears"] == dict.fromkeys(table.quantized, "Int8 × Int8")
    assert checked(result.bundle)["compared"] == {"graph": "float32", "program": "half", "lowered graph": "quantised"}
