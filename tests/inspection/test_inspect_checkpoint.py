"""A checkpoint: its components with canonical names and configurations, and their weights by dtype."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from wanc.models.wan.checkpoint import open_checkpoint

from ..conftest import ROOT, Wanc

TINY = ROOT / "models" / "tiny-wan"


def test_the_tiny_model_is_described(wanc: Wanc) -> None:
    finished = wanc("inspect", TINY, "--json")
    assert (finished.code, finished.err) == (0, "")
    described = json.loads(finished.out)
    checkpoint = open_checkpoint(TINY)
    assert {name: described[name] for name in ("kind", "layout", "boundary", "text_length")} == {
        "kind": "checkpoint",
        "layout": "diffusers",
        "boundary": 0.875,
        "text_length": 64,
    }
    assert described["components"].keys() == checkpoint.components.keys()
    for name, component in checkpoint.components.items():
        part = described["components"][name]
        assert part["weights"]["count"] == len(component.weights)
        assert part["weights"]["bytes"] == sum(weight.length for weight in component.weights.values())
        assert part["config"] == json.loads(json.dumps(component.config))
    assert described["files"] == list(checkpoint.files)
    people = wanc("inspect", TINY).out
    assert "\n  layout       diffusers\n" in people
    assert "\n  denoiser_low   bfloat16  " in people


def test_a_checkpoint_with_doubts_can_be_looked_at(wanc: Wanc, tmp_path: Path) -> None:
    """Its weights' names are what a recipe may have to allow."""
    copy = shutil.copytree(TINY, tmp_path / "copy")
    config = copy / "vae/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tiling": True}))
    finished = wanc("inspect", copy, "--json")
    assert (finished.code, finished.err) == (0, "")
    (doubt,) = json.loads(finished.out)["doubts"]
    assert (doubt["name"], doubt["where"]) == ("tiling", str(config))
    assert "tiling is true, and wanc does not know this key" in wanc("inspect", copy).out
