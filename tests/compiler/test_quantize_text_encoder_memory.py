"""Quantising a text encoder of umT5-xxl's width: memory does not grow with the number of layers, nor with the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.checkpoints.models import MODELS, UMT5_XXL
from scripts.make_checkpoint import make
from wanc.compiler.export.wan import Export
from wanc.compiler.program.quant_table import QuantTable, table_file
from wanc.compiler.quantize.text_encoder import QuantizeTextEncoder
from wanc.compiler.quantize.texts import Texts
from wanc.compiler.stages.stage import Files, Stage, scratch_of
from wanc.compiler.stages.worker import run_in_worker
from wanc.models.wan.checkpoint import open_checkpoint
from wanc.runtime.model import TEXT_ENCODER

from .fusing import DEFAULT, files_of

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("fresh_stages")]

GIB = 2**30
MOST_RSS = 2 * GIB
MOST_GROWTH = GIB // 4
"""Of two layers more: their weights are 1.5 GiB in float32, 0.75 as they are stored, and 0.37 as codes."""
NUMBERS = (1, 3)
MODEL = MODELS["wan2.1-1.3b-shape"]
PROMPTS = ("A red circle moves to the left.", "在深色背景上，一个红色的三角形向右移动。", "")


def run_stage(stage: Stage, inputs: Mapping[str, Files], folder: Path) -> tuple[Files, int]:
    """A stage in a process of its own, as a build has it: what it wrote, and its peak memory."""
    out = folder / stage.label / "out"
    out.mkdir(parents=True)
    scratch_of(out).mkdir()
    peak = run_in_worker(stage, inputs, out, progress=False)
    return files_of(out), peak


def peaks(layers: int, scheme: str, folder: Path) -> dict[str, int]:
    """The peak memory of the stages that read all weights of the encoder, by their labels."""
    # A table of 0.13 GB, of which a few rows are read.
    encoder = {**UMT5_XXL, "num_layers": layers, "vocab_size": 16384}
    one_block = {**MODEL.denoiser, "num_layers": 1, "ffn_dim": 256, "num_attention_heads": 2}
    make(replace(MODEL, text_encoder=encoder, denoiser=one_block), "diffusers", folder / "model", seed=0)
    checkpoint = open_checkpoint(folder / "model")
    source = {name: checkpoint.root / name for name in checkpoint.files}
    (tokenizer,) = [name for name in source if name.endswith("tokenizer.json")]
    exported, _ = run_stage(Export(tuple(checkpoint.components)), {"source": source}, folder)
    program, _ = run_stage(DEFAULT, {"program": exported}, folder)
    inputs = {"program": program, "exported": exported, "source": source}
    quantize = QuantizeTextEncoder(PROMPTS, tokenizer, scheme, "absmax", "search", (), None, None)
    made, quantising = run_stage(quantize, inputs, folder)
    assert len(QuantTable.read(made[table_file(TEXT_ENCODER)]).quantized) == 7 * layers
    texts = Texts(PROMPTS, tokenizer)
    quantised = {**inputs, "program": {**program, **made}}
    _, encoding = run_stage(texts, quantised, folder)
    return {"quantize": quantising, "texts": encoding}


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["int8-weight", "int8"])
def test_memory_is_that_of_one_segment(scheme: str, tmp_path: Path) -> None:
    found: dict[int, dict[str, int]] = {}
    for layers in NUMBERS:
        found[layers] = peaks(layers, scheme, tmp_path / str(layers))
        print(layers, {name: f"{peak / GIB:.2f} GiB" for name, peak in found[layers].items()})
    few, many = (found[layers] for layers in NUMBERS)
    for stage, peak in many.items():
        assert peak < MOST_RSS
        assert peak < few[stage] + MOST_GROWTH
