"""tiny-wan for a data-centre GPU: sealed without one through record, tables and check, and built on its target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Wanc
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.runtime.manifest import Manifest
from wanc.runtime.verify import verify

from .conftest import AMPERE, Machine

OVERRIDES = ("name=tiny-tensorrt", "engine.kind=tensorrt", "engine.targets=[sm80]", "precision.compute=bf16")


@pytest.mark.slow
def test_a_video_model(
    tiny_recipe: Path, tiny_bundle: Path, on_a_machine_with: Machine, wanc: Wanc, tmp_path: Path
) -> None:
    (loaded,) = load(tiny_recipe, OVERRIDES)
    parent = build(loaded, tiny_bundle.parents[1], progress=False).bundle
    assert Manifest.read(parent).check["mode"] == "on"
    refused = wanc("run", parent, "--prompt", "a", "-o", tmp_path / "out.mp4")
    assert refused.code != 0 and "wanc build --on-target" in refused.err

    child = on_a_machine_with(AMPERE)(parent)
    assert (child.engines, child.waiting) == (11, 0) and verify(child.bundle).ok and verify(parent).ok
    files = {file.path for file in Manifest.read(child.bundle).files}
    assert not [name for name in files if name.endswith((".onnx", ".bin", ".settings.json"))]
    assert {f"engines/{expert}/time.table.safetensors" for expert in ("denoiser_high", "denoiser_low")} <= files
    components = json.loads((child.bundle / "engine_report.json").read_bytes())["components"]
    assert components["denoiser_high"]["step"]["fused"] == {"Attention": 10}
    assert components["vae_decoder"]["first"]["attentions"]["unfused"] == ["decoder.mid_block.attentions.0"]
    assert wanc("inspect", child.bundle).code == 0
