"""Whole bundles of tiny-wan for RTX GPUs, calibrated and built where there are none: what their own reports say."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from wanc.compiler.engines.tensorrt_rtx.build import BINDINGS
from wanc.compiler.pipeline import build
from wanc.compiler.program.quant_table import QuantTable, table_file
from wanc.recipe.load import load
from wanc.runtime.model import HIGH, LOW
from wanc.runtime.verify import verify

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # minutes of processor time, on a machine that may do much else
    pytest.mark.skipif(importlib.util.find_spec(BINDINGS) is None, reason="TensorRT-RTX is not installed"),
]

EXPERTS = (HIGH, LOW)
ATTENTIONS = {f"blocks.{block}.attn{number}" for block in range(5) for number in (1, 2)}
SELECTED = 50
"""Linears of an expert: eight in each block of the step, and two of each in the part for a request."""
VARIANTS = {
    "int8": (("sm80", "sm89", "sm120"), "Int8 × Int8", "BFloat16"),
    "fp8": (("sm89", "sm120"), "FP8 × FP8", "BFloat16"),
    "fp8-attention": (("sm89", "sm120"), "FP8 × FP8", "FP8"),
}
"""For which targets, and in which numbers Linears and attentions of the experts multiply."""


@dataclass(frozen=True)
class Made:
    """A bundle, and what its report says of every target's graphs: by target, component and graph."""

    root: Path
    targets: dict[str, dict[str, dict[str, Any]]]

    def table(self, component: str) -> QuantTable:
        return QuantTable.read(self.root / table_file(component))


@pytest.fixture(scope="module")
def made(tiny_recipe: Path, tiny_bundle: Path) -> Callable[[str], Made]:
    """Builds a variant into the store of `tiny_bundle`, so that each calibration is made once."""
    variants = {loaded.recipe.name: loaded for loaded in load(tiny_recipe.with_name("tiny-wan-rtx.yaml"))}

    def make(variant: str) -> Made:
        root = build(variants[f"tiny-wan-rtx-{variant}"], tiny_bundle.parents[1], progress=False).bundle
        report = json.loads((root / "engine_report.json").read_bytes())
        return Made(root, {report["target"]: report["components"], **report["others"]})

    return make


@pytest.mark.parametrize(
    "variant",
    ["int8", pytest.param("fp8", marks=pytest.mark.long), "fp8-attention"],  # which has fp8's Linears as well
)
def test_every_selected_linear_and_attention_is_built_for_every_target(
    variant: str, made: Callable[[str], Made]
) -> None:
    targets, linears, attentions = VARIANTS[variant]
    bundle = made(variant)
    assert verify(bundle.root).ok
    assert bundle.targets.keys() == set(targets)
    for components in bundle.targets.values():
        for expert in EXPERTS:
            selected, graphs = bundle.table(expert).quantized, components[expert]
            built = {**graphs["request"]["linears"], **graphs["step"]["linears"]}
            assert len(selected) == SELECTED
            assert {built[name] for name in selected} == {linears}
            kept = {name: numbers for name, numbers in built.items() if name not in selected}
            assert set(kept.values()) == {"BFloat16 × BFloat16"}, kept
            found = graphs["step"]["attentions"]
            assert (set(found["fused"]), found["unfused"]) == (ATTENTIONS, [])
            assert found["numbers"] == dict.fromkeys(ATTENTIONS, attentions)
        encoder = components["text_encoder"]["encode"]["attentions"]
        assert len(encoder["fused"]) == 2 and set(encoder["numbers"].values()) == {"BFloat16"}
        for graph in ("first", "steady"):
            told = components["vae_decoder"][graph]["attentions"]
            assert told == {"fused": [], "unfused": ["decoder.mid_block.attentions.0"], "numbers": {}}


def test_the_table_in_the_bundle_says_how_attentions_are_rounded(made: Callable[[str], Made]) -> None:
    for expert in EXPERTS:
        rounded = made("fp8-attention").table(expert).attentions
        assert rounded.keys() == ATTENTIONS
        scales = [(one.query_scale, one.key_scale, one.value_scale) for one in rounded.values()]
        assert len(set(scales)) == len(ATTENTIONS), "each has its own"
        assert {one.probability_scale for one in rounded.values()} == {0.00223214}
        floats = made("fp8").table(expert).attentions
        assert {(name, one.scheme) for name, one in floats.items()} == {(name, "float") for name in ATTENTIONS}


def test_the_source_was_compared_with_what_was_built(made: Callable[[str], Made]) -> None:
    """The lowered graphs, attention in FP8 included, with diffusers' own modules."""
    manifest = json.loads((made("fp8-attention").root / "manifest.json").read_bytes())
    for expert in EXPERTS:
        checked = manifest["check"]["graphs"][f"{expert}/step"]
        assert checked["compared"] == {"graph": "float32", "lowered graph": "quantised", "program": "half"}
        assert all(trial["errors"]["program"] < 0.05 for trial in checked["trials"])
