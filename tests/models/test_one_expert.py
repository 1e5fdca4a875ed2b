"""A model of which only the low-noise expert is there: what to do is said, and doing it works."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make

from ..conftest import ROOT, Wanc

RECIPE = """\
wanc: 1
name: low
model: {source: model}
shapes: [{name: s, height: 64, width: 64, frames: 17}]
sampling: {steps: 20, shift: 4.0, guidance: {high: 3.0, low: 3.0}}
"""
HINT = (
    "hint: a single expert has to be called transformer: rename the folder transformer_2, and write in "
    'model_index.json "transformer": ["diffusers", "WanTransformer3DModel"], "transformer_2": [null, null], '
    '"boundary_ratio": null\n'
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("low.yaml").write_text(RECIPE)


def rewrite_index(**entries: object) -> None:
    path = Path("model/model_index.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


@pytest.mark.parametrize("boundary", [1.0, 0.875, None])
def test_the_low_noise_expert_alone(boundary: float | None, wanc: Wanc) -> None:
    """diffusers runs it at a boundary of 1, where no step is the other's."""
    shutil.copytree(ROOT / "models/tiny-wan", "model", ignore=shutil.ignore_patterns("transformer"))
    rewrite_index(transformer=[None, None], boundary_ratio=boundary)
    finished = wanc("recipe", "check", "low.yaml")
    assert (finished.code, finished.out) == (2, "")
    assert finished.err == f"error: low.yaml:3:8: a text-to-video bundle needs the component denoiser_high\n{HINT}"
    Path("model/transformer_2").rename("model/transformer")
    rewrite_index(transformer=["diffusers", "WanTransformer3DModel"], transformer_2=[None, None], boundary_ratio=None)
    assert wanc("recipe", "check", "low.yaml").out == "ok: low\n"


def test_a_recipe_that_names_the_components_of_one(wanc: Wanc) -> None:
    shutil.copytree(ROOT / "models/tiny-wan", "model")
    asked = RECIPE.replace("{source: model}", "{source: model, components: [text_encoder, denoiser_low, vae_decoder]}")
    Path("low.yaml").write_text(asked)
    finished = wanc("recipe", "check", "low.yaml")
    assert finished.err.endswith("hint: leave components out to build all of the model's\n")
    Path("low.yaml").write_text(RECIPE)
    assert wanc("recipe", "check", "low.yaml").out == "ok: low\n"


@pytest.mark.parametrize("expert", ["high", "low"])
def test_one_expert_s_folder_of_the_original_layout(expert: str, wanc: Wanc) -> None:
    make(MODELS["wan2.2-t2v-a14b"], "original", Path("model"), seed=1, sparse=True)
    shutil.rmtree(f"model/{'low' if expert == 'high' else 'high'}_noise_model")
    finished = wanc("recipe", "check", "low.yaml")
    assert finished.code == 65
    assert finished.err.endswith("To build this expert alone, move what its folder holds out of it\n")
    for path in Path(f"model/{expert}_noise_model").iterdir():
        path.rename(path.parent.parent / path.name)
    Path(f"model/{expert}_noise_model").rmdir()
    assert wanc("recipe", "check", "low.yaml").out == "ok: low\n"
