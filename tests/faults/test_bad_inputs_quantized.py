"""What only turns out while a model is calibrated and quantised: all that is said, and nothing half-written."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.checkpoints import write_checkpoint

from .bad_input import QUANTISED, Break, Case, answer, edit, nothing

BUILD = "build recipe.yaml --set quantize.calibrate.clips=1"
WEIGHTS = "diffusion_pytorch_model.safetensors"
KEY = "blocks.0.ffn.net.2.weight"
FINISHED = ("export", "fuse", "texts")
QUANTISED_HIGH = (*FINISHED, "calibrate", "quantize")


def done(*stages: str) -> str:
    """What is said of the stages that come to their end."""
    return "".join(f"{stage:<10} S s, peak N MiB\n" for stage in stages)


def spoil(expert: str, value: float) -> Break:
    """Put a value into a weight of an expert."""

    def broken() -> None:
        path = Path("model", expert, WEIGHTS)
        tensors = load_file(path)
        tensors[KEY][3, 1] = value
        save_file(tensors, path, {"format": "pt"})

    return broken


def overflow(expert: str, factor: float) -> Break:
    """Store an expert in float16, in which a large weight is infinite."""

    def broken() -> None:
        path = Path("model", expert, WEIGHTS)
        tensors = load_file(path)
        tensors[KEY] *= factor
        with np.errstate(over="ignore"):
            save_file({name: tensor.astype(np.float16) for name, tensor in tensors.items()}, path, {"format": "pt"})

    return broken


CASES: dict[str, Case] = {
    "x": Case(BUILD, code=0, err="", broken=nothing),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("sound"), seed=1)


@pytest.mark.parametrize("name", CASES)
def test_the_whole_answer(name: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(QUANTISED)
    Path("prompts.txt").write_text("A red circle moves to the left.\n")
    shutil.copytree(checkpoint, "model")
    case = CASES[name]
    assert answer(case, tmp_path) == (case.code, case.out, case.err)
