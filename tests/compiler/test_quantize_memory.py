"""Memory of quantising does not grow with the number of blocks: one segment is open at a time, and nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc.compiler.export.wan import Export
from wanc.compiler.program.quant_table import QuantTable, table_file
from wanc.compiler.quantize.calibrate import Calibrate
from wanc.compiler.quantize.quantize import Quantize
from wanc.compiler.quantize.texts import RESULT, TENSOR
from wanc.compiler.stages.stage import Files, Stage, scratch_of
from wanc.compiler.stages.worker import run_in_worker
from wanc.compiler.trajectory import Trajectory
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.runtime import safetensors
from wanc.runtime.model import HIGH

from .fusing import DEFAULT, files_of

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("fresh_stages")]

GIB = 2**30
MODEL = MODELS["wan2.1-1.3b-shape"]
MOST_RSS = 3 * GIB
# Of 6 blocks more, codes are 0.26 GiB and weights twice that; of 20, 0.86. The allocator keeps up to 0.15 for itself.
MOST_GROWTH = GIB // 4
SIZE = (128, 128, 9)
"""192 tokens: what the weights take is nearly all there is."""
TRAJECTORY = Trajectory("unipc", 2, None, 5.0, 4.0, 4.0, None)
CALIBRATE = Calibrate(HIGH, TRAJECTORY, (SIZE,), clips=1, timestep_bins=2, seed=0)
QUANTIZE = Quantize(
    HIGH, "int8", "absmax", "search", ("patch_embedding", "condition_embedder", "proj_out"), None, None, TRAJECTORY
)


def run_stage(stage: Stage, inputs: Mapping[str, Files], folder: Path) -> tuple[Files, int]:
    """A stage in a process of its own, as a build has it: what it wrote, and its peak memory."""
    out = folder / stage.name / "out"
    out.mkdir(parents=True)
    scratch_of(out).mkdir()
    peak = run_in_worker(stage, inputs, out, progress=False)
    return files_of(out), peak


def peaks(blocks: int, folder: Path) -> dict[str, int]:
    """The peak memory of the stages that read all weights of a 1.3B model with so many blocks, by their names."""
    make(replace(MODEL, denoiser={**MODEL.denoiser, "num_layers": blocks}), "diffusers", folder / "model", seed=0)
    checkpoint = open_checkpoint(folder / "model")
    source = {name: checkpoint.root / name for name in checkpoint.files}
    exported, _ = run_stage(Export(tuple(checkpoint.components)), {"source": source}, folder)
    program, _ = run_stage(DEFAULT, {"program": exported}, folder)
    random = np.random.default_rng(0)
    width = MODEL.denoiser["text_dim"]
    texts = folder / RESULT
    safetensors.write(texts, {TENSOR: random.normal(size=(2, MODEL.text_length, width)).astype(np.float32)})
    inputs = {"program": program, "exported": exported, "source": source, "texts": {RESULT: texts}}
    samples, calibrating = run_stage(CALIBRATE, inputs, folder)
    made, quantising = run_stage(QUANTIZE, {**inputs, "samples": samples}, folder)
    table = QuantTable.read(made[table_file(HIGH)])
    assert len(table.quantized) == 10 * blocks
    return {"calibrate": calibrating, "quantize": quantising}


@pytest.mark.parametrize(
    "numbers",
    [pytest.param((2, 6), marks=pytest.mark.slow), pytest.param((10, 20, 30), marks=pytest.mark.long)],
    ids=["few blocks", "many blocks"],
)
def test_memory_is_that_of_one_segment(numbers: tuple[int, ...], tmp_path: Path) -> None:
    found: dict[int, dict[str, int]] = {}
    for blocks in numbers:
        found[blocks] = peaks(blocks, tmp_path / str(blocks))
        print(blocks, {name: f"{peak / GIB:.2f} GiB" for name, peak in found[blocks].items()})
    for blocks in numbers:
        for stage, peak in found[blocks].items():
            assert peak < MOST_RSS
            assert peak < found[numbers[0]][stage] + MOST_GROWTH
