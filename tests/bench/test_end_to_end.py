"""Whole videos: which bundles are measured of a recipe, what they are called, and what is told of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wanc.bench.end_to_end import AUTOCAST, REFERENCE, contenders
from wanc.errors import UserError
from wanc.recipe.load import load

from ..conftest import ROOT, Wanc

FLOATS = ["wanc onnxruntime", "wanc openvino", "wanc openvino bf16"]
CALIBRATE = f"calibrate: {{prompts: {ROOT}/recipes/prompts/tiny-wan-calibrate.txt}}"


@pytest.mark.parametrize(
    ("recipe", "overrides", "names"),
    [
        ("recipes/tiny-wan.yaml", [], FLOATS),
        ("recipes/tiny-wan.yaml", ["engine.kind=openvino"], FLOATS[1:]),
        ("recipes/tiny-wan.yaml", ["engine.kind=openvino", "precision.compute=bf16"], FLOATS[2:]),
        ("recipes/tiny-wan.yaml", ["engine.kind=onnxruntime", "precision.compute=fp32"], FLOATS[:1]),
        ("recipes/tiny-wan-int8.yaml", [], [name for float_ in FLOATS for name in (float_, f"{float_}, int8")]),
        ("bench/tiny-wan-int8.yaml", [], ["wanc openvino bf16", "wanc openvino bf16, int8"]),
        ("bench/wan-1.3b-shape-int8.yaml", [], ["wanc openvino bf16", "wanc openvino bf16, int8"]),
        (
            "recipes/tiny-wan.yaml",
            ["engine.kind=openvino", f"quantize={{scheme: int4-weight, text_encoder: int8-weight, {CALIBRATE}}}"],
            [name for float_ in FLOATS[1:] for name in (float_, f"{float_}, int4-weight, int8-weight")],
        ),
    ],
)
def test_contenders_are_called_what_they_are(recipe: str, overrides: list[str], names: list[str]) -> None:
    (loaded,) = load(ROOT / recipe, overrides)
    found = contenders(loaded)
    assert [one.name for one in found] == names
    for one in found:
        (built,) = load(ROOT / recipe, [*overrides, *one.overrides])
        assert bool(built.recipe.quantize.schemes) == ("," in one.name)
        assert built.recipe.engine.kind in one.name
        assert (built.recipe.precision.compute, one.compute) == (("bf16",) * 2 if "bf16" in one.name else ("fp32",) * 2)


def test_an_engine_that_is_not_executed_here_is_refused() -> None:
    (loaded,) = load(ROOT / "recipes" / "tiny-wan.yaml", ["engine.kind=onnxruntime", "precision.compute=fp32"])
    assert contenders(loaded)
    loaded, *_ = load(ROOT / "recipes" / "tiny-wan-rtx.yaml")
    with pytest.raises(UserError, match="tensorrt-rtx in bf16 is not executed on this processor"):
        contenders(loaded)


def test_a_recipe_of_several_variants_is_refused_in_words(wanc: Wanc, tmp_path: Path) -> None:
    found = wanc("bench", "--e2e", ROOT / "recipes" / "tiny-wan-matrix.yaml", "-o", tmp_path)
    assert found.code != 0 and "a recipe of several variants is not measured at once" in found.err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_shares_and_floors_are_read_from_what_was_built_and_measured(wanc: Wanc, tmp_path: Path) -> None:
    few = ("--set", "quantize.calibrate.clips=1", "--set", "sampling.steps=4")
    recipe = ROOT / "bench" / "tiny-wan-int8.yaml"
    found = wanc("bench", "--e2e", recipe, "--rounds", "1", *few, "-o", tmp_path, "--json")
    assert found.code == 0, found.err
    report = json.loads(found.out)
    told = {entry["name"]: entry for entry in report["contenders"]}
    integers, floats = told["wanc openvino bf16, int8"], told["wanc openvino bf16"]
    assert told.keys() == {REFERENCE, AUTOCAST, "wanc openvino bf16", "wanc openvino bf16, int8"}
    assert integers["int8_linear_share"] > 0.9 and 0.5 < integers["int8_total_share"] < integers["int8_linear_share"]
    assert all(told[name]["int8_linear_share"] == 0 for name in told.keys() - {"wanc openvino bf16, int8"})
    floors = report["case"]["floors"]
    # A place of bfloat16 is 65,536 of float32's.
    assert floors["bf16"] > 1000 * floors["fp32"] > 0
    for name in (AUTOCAST, "wanc openvino bf16", "wanc openvino bf16, int8"):
        assert told[name]["floors"] == pytest.approx(told[name]["rel_error"] / floors["bf16"])
    assert told[REFERENCE]["floors"] == 0 < floats["floors"] < integers["floors"]
