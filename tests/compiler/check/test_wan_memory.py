"""At the width of Wan2.2-T2V-A14B, from files that are holes: no more than a block is in memory of what is executed."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc.compiler.stages.worker import call_in_worker
from wanc.models.wan.checkpoint import open_checkpoint

from .executed_wan import peak_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_stages")]

GIB = 2**30
LAYERS = 4


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide") / "model"
    make(MODELS["wan2.2-t2v-a14b"].with_layers(LAYERS), "diffusers", folder, seed=0, sparse=True)
    return folder


@pytest.mark.parametrize(
    ("component", "block", "trials"),
    [("denoiser_high", "blocks.0.", 1), ("text_encoder", "encoder.block.0.", 1), ("vae_decoder", "decoder.", 2)],
)
def test_no_more_than_a_block_is_in_memory(wide: Path, component: str, block: str, trials: int) -> None:
    weights = open_checkpoint(wide).components[component].weights
    of_block = sum(2 * weight.length for name, weight in weights.items() if name.startswith(block))  # from bfloat16
    made, peak = call_in_worker("check", peak_of, wide, component)
    print(f"{component}: {peak / GIB:.2f} GiB, and a block has {of_block / GIB:.2f} GiB")
    assert made == trials, "of what is large, the golden inputs alone"
    assert peak <= of_block + GIB
