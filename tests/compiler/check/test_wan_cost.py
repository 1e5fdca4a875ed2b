"""What the comparison costs: a block in memory at the width of Wan2.2-T2V-A14B, and a share of a build's time."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc.compiler.pipeline import build
from wanc.compiler.stages.worker import call_in_worker
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.recipe.load import load

from .executed_wan import peak_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_stages")]

GIB = 2**30
LAYERS = 4
MOST_SHARE = 0.25


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose files are holes."""
    folder = tmp_path_factory.mktemp("wide") / "model"
    make(MODELS["wan2.2-t2v-a14b"].with_layers(LAYERS), "diffusers", folder, seed=0, sparse=True)
    return folder


@pytest.mark.parametrize(
    ("component", "block", "trials"),
    [("denoiser_high", "blocks.0.", 1), ("text_encoder", "encoder.block.0.", 1), ("vae_decoder", "decoder.", 4)],
)
def test_no_more_than_a_block_is_in_memory(wide: Path, component: str, block: str, trials: int) -> None:
    weights = open_checkpoint(wide).components[component].weights
    of_block = sum(2 * weight.length for name, weight in weights.items() if name.startswith(block))  # from bfloat16
    made, peak = call_in_worker("check", peak_of, wide, component)
    print(f"{component}: {peak / GIB:.2f} GiB, and a block has {of_block / GIB:.2f} GiB")
    assert made == trials, "of what is large, the golden inputs alone"
    assert peak <= of_block + GIB


def test_it_takes_a_quarter_of_a_build_s_time_at_most(tiny_recipe: Path, tmp_path: Path) -> None:
    """A build from nothing, each stage in an interpreter of its own; what it does without is `engine.check: off`."""
    (loaded,) = load(tiny_recipe)
    seconds = {"check": 0.0, "others": 0.0}
    for run in build(loaded, tmp_path / "output", progress=False).stages:
        assert not run.cached or run.name == "compile"  # the experts' may be alike
        seconds["check" if run.name == "check" else "others"] += run.seconds
    print({name: f"{value:.1f} s" for name, value in seconds.items()})
    assert seconds["check"] <= MOST_SHARE * seconds["others"]
