"""What turns out when a model is calibrated and quantised, not before: all that is said, and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.checkpoints import write_checkpoint

from ..compiler.builder import Project
from .bad_input import QUANTISED, Break, Case, assert_nothing_half_written, edit, run, without_chance

ONE_CLIP = "--set quantize.calibrate.clips=1"
ONE_SAMPLE = (
    f"{ONE_CLIP} --set quantize.calibrate.timestep_bins=1 --set sampling.guidance.high=1 --set sampling.guidance.low=1"
)
WEIGHTS = "diffusion_pytorch_model-00002-of-00003.safetensors"
WEIGHT = "blocks.0.ffn.net.2.weight"
MISSPELT = edit("prompts.txt}", "prompts.txt}\n  keep: {patterns: [proj_out, blocks.0.atn1]}")


def done(*stages: str) -> str:
    """What is said of the graphs, which are there, and of the stages that come to their end."""
    return "export: cached\nfuse: cached\n" + "".join(f"{stage}: S s, peak N MiB\n" for stage in stages)


def spoil(expert: str, factor: float) -> Break:
    """Multiply a weight of an expert, which is stored in float16."""

    def broken() -> None:
        path = Path("model", expert, WEIGHTS)
        tensors = load_file(path)
        with np.errstate(over="ignore"):
            tensors[WEIGHT] = (tensors[WEIGHT].astype(np.float32) * factor).astype(np.float16)
        save_file(tensors, path, {"format": "pt"})

    return broken


CASES: dict[str, Case] = {
    "a pattern that fits nothing": Case(
        ONE_CLIP,
        code=2,
        err=f"{done()}error: recipe.yaml:14:31: quantize.keep.patterns: blocks.0.atn1 fits no module of denoiser_high "
        "or denoiser_low\n"
        "hint: did you mean blocks.0.attn1 or blocks.0.attn2 or blocks.0.attn1.to_v?\n",
        broken=MISSPELT,
    ),
    "a pattern that fits nothing of a text encoder": Case(
        "--set quantize.scheme=none --set quantize.text_encoder=int8",
        code=2,
        err=f"{done()}error: recipe.yaml:14:21: quantize.keep.patterns: proj_out fits no module of text_encoder\n"
        "hint: patterns are globs over modules, such as encoder.final_layer_norm\n",
        broken=MISSPELT,
    ),
    "one sample": Case(
        ONE_SAMPLE,
        code=2,
        err=f"{done('texts', 'calibrate denoiser_high')}error: one sample cannot show how far activations reach\n"
        "hint: raise quantize.calibrate.clips or quantize.calibrate.timestep_bins\n",
    ),
    "weights that overflowed": Case(
        ONE_CLIP,
        code=65,
        err=f"{done('texts')}error: DIR/model/transformer/{WEIGHTS}: denoiser_high: tensor {WEIGHT} holds 767 values "
        "that are not finite\n"
        f"hint: if that is meant, as in a mask, allow it: model.allow_not_finite: [{WEIGHT}]\n",
        broken=spoil("transformer", 1e9),
    ),
    "weights of one expert that are NaN": Case(
        ONE_CLIP,
        code=65,
        err=f"{done('texts', 'calibrate denoiser_high', 'quantize denoiser_high')}"
        f"error: DIR/model/transformer_2/{WEIGHTS}: denoiser_low: tensor {WEIGHT} holds 768 values that are not "
        "finite\n"
        f"hint: if that is meant, as in a mask, allow it: model.allow_not_finite: [{WEIGHT}]\n",
        broken=spoil("transformer_2", float("nan")),
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("sound"), seed=1, dtype=torch.float16, shards=2)


@pytest.fixture(scope="module")
def output(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of them build: graphs depend on no weight, so that those of another build are there already."""
    output = tmp_path_factory.mktemp("first") / "artifacts"
    shutil.copytree(project.output / "store", output / "store")
    return output


def prepare(checkpoint: Path, broken: Break) -> None:
    """Put a recipe and its model into the working directory, and break something."""
    Path("recipe.yaml").write_text(QUANTISED)
    Path("prompts.txt").write_text("A red circle moves to the left.\n")
    shutil.copytree(checkpoint, "model")
    broken()


@pytest.mark.parametrize("name", CASES)
def test_the_whole_answer(
    name: str, checkpoint: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = CASES[name]
    prepare(checkpoint, case.broken)
    finished = run(f"build recipe.yaml -o {output} {case.arguments}", tmp_path)
    assert_nothing_half_written(output, [])
    answer = finished.returncode, finished.stdout, without_chance(finished.stderr, tmp_path)
    assert answer == (case.code, case.out, case.err)
