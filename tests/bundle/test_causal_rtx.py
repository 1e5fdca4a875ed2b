"""Causal graphs as segments for RTX GPUs, built where there are none: the past lies with the blocks that see it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from wanc.compiler.engines.tensorrt_rtx.build import BINDINGS
from wanc.compiler.pipeline import build
from wanc.recipe.load import load
from wanc.runtime.manifest import Manifest
from wanc.runtime.model import HIGH, LOW
from wanc.runtime.strict_json import Fields

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(importlib.util.find_spec(BINDINGS) is None, reason="TensorRT-RTX is not installed"),
]
OVERRIDES = (
    "name=causal-rtx",
    "partition.cut=2",
    "engine.kind=tensorrt-rtx",
    "engine.targets=[sm89]",
    "precision.compute=bf16",
    "runtime.kv_cache.precision=fp16",
)


def test_a_segment_takes_and_leaves_the_keys_of_its_own_blocks(causal_recipe: Path, causal_bundle: Path) -> None:
    (loaded,) = load(causal_recipe, OVERRIDES)
    bundle = build(loaded, causal_bundle.parents[1], progress=False).bundle
    topology = Manifest.read(bundle).topology
    entries = Fields(dict(topology), "topology").objects("engines")
    for expert in (HIGH, LOW):
        steps = [entry for entry in entries if (entry.text("component"), entry.text("graph")) == (expert, "step")]
        assert len(steps) == 2
        seen: list[str] = []
        for entry in steps:
            taken, left = (
                {name.split(".")[1] for name in entry.texts(side) if name.startswith(start)}
                for side, start in (("inputs", "past."), ("outputs", "new."))
            )
            assert taken == left, "what a block sees of the past is where the block is"
            seen += sorted(taken)
        assert seen == [str(block) for block in range(5)], "each is in one place"
