"""A build for devices that split the tokens of a segment: what is planned, cut, checked over all ranks, and sealed.

For GPUs, whose engines exchange themselves, and for processors, where the runtime does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.checkpoints import write_checkpoint
from wanc.compiler.pipeline import build
from wanc.errors import RecipeError
from wanc.recipe.load import load
from wanc.runtime.api import open as open_bundle
from wanc.runtime.engine_file import RANK
from wanc.runtime.execute import run_selftest
from wanc.runtime.manifest import Manifest
from wanc.runtime.verify import verify

HEADS, LAYERS = 4, 2
RECIPE = """\
wanc: 1
name: ranked
model: {source: model}
shapes: [{name: wide, height: 32, width: 64, frames: 9}, {name: small, height: 32, width: 32, frames: 5}]
sampling: {steps: 2, shift: 5.0, guidance: {high: 4.0, low: 4.0}}
engine: {kind: tensorrt}
precision: {compute: bf16}
partition:
  devices: [{kind: a100-80g, count: 4}]
  ulysses: 2
  stages: 2
  replicas: 1
  branches: serial
  experts: resident
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe beside its model, of four heads of 32."""
    folder = tmp_path_factory.mktemp("ranked")
    sizes = {"layers": LAYERS, "heads": HEADS, "head_dim": 32, "ffn": 64, "experts": 1}
    write_checkpoint(folder / "model", seed=4, **sizes)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def built(folder: Path, *changes: str) -> Path:
    (loaded,) = load(folder / "recipe.yaml", changes)
    return build(loaded, folder, replace=True, progress=False).bundle


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return built(folder)


def entries(bundle: Path, component: str, graph: str) -> list[dict[str, Any]]:
    found = cast("list[dict[str, Any]]", Manifest.read(bundle).topology["engines"])
    return [entry for entry in found if (entry["component"], entry["graph"]) == (component, graph)]


@pytest.mark.slow
def test_each_segment_says_which_devices_execute_it(bundle: Path) -> None:
    assert verify(bundle).ok
    assert Manifest.read(bundle).requires == ("ranks/1", "segments/1")
    first, second = entries(bundle, "denoiser_high", "step")
    devices = [f"a100-80g.{number}" for number in range(4)]
    assert sorted([*first["ranks"], *second["ranks"]]) == devices
    assert first["device"] == first["ranks"][0] and second["device"] == second["ranks"][0]
    assert RANK in first["inputs"] and RANK not in second["inputs"], "the first takes its tokens, and hands them on"
    for entry in entries(bundle, "vae_decoder", "steady"):
        assert "ranks" not in entry, "one device executes it"


@pytest.mark.slow
def test_the_check_has_executed_all_ranks(bundle: Path) -> None:
    check = cast("dict[str, Any]", Manifest.read(bundle).check)["graphs"]["denoiser_high/step"]
    assert check["compared"]["ranks"] == "half"
    noise = check["trials"][0]
    assert noise["sizes"] == {"columns": 5, "frames": 3, "rows": 4}
    assert noise["errors"]["ranks"] == noise["errors"]["lowered graph"], "not one bit of difference"


@pytest.mark.slow
def test_engines_are_to_be_built_for_the_tokens_of_a_rank(bundle: Path) -> None:
    _, second = entries(bundle, "denoiser_high", "step")
    profiles = json.loads((bundle / f"{second['file']}.settings.json").read_bytes())["profiles"]
    streams = {tuple(profile[name][0]) for profile in profiles for name in profile if name.startswith("add")}
    tokens = {(5, 8, 16), (3, 8, 8)}  # frames, rows and columns: this decoder doubles each, and so does a token
    assert {size for _, size, _ in streams} == {frames * rows * columns // 2 for frames, rows, columns in tokens}


PROCESSORS = ("engine.kind=onnxruntime", "precision.compute=fp32", "name=processors")


@pytest.fixture(scope="module")
def on_processors(folder: Path, bundle: Path) -> Path:
    """The same for four processors; what is no engine is in the store."""
    assert bundle.exists()
    return built(folder, *PROCESSORS, "partition.devices=[{kind: cpu, count: 4}]")


@pytest.mark.slow
def test_processors_give_the_video_that_one_gives(folder: Path, on_processors: Path) -> None:
    """And pass their self-test, which the build has executed one rank after the other."""
    one = built(folder, *PROCESSORS, "name=processor", "partition={}")
    frames = [open_bundle(path, threads=1).generate("a red circle", seed=3).frames for path in (on_processors, one)]
    assert np.abs(np.subtract(*frames, dtype=np.int16)).max() <= 1, "a sum in another order may round otherwise"
    assert run_selftest(on_processors).ok


@pytest.mark.slow
def test_processors_split_the_step_alone_and_exchange_between_its_pieces(on_processors: Path) -> None:
    files = entries(on_processors, "denoiser_high", "step")
    assert [entry["segment"] for entry in files] == list(range(2 * LAYERS + 3))
    assert [len(entry.get("exchanges", [])) for entry in files] == [0, 3, 1, 0, 3, 1, 1]
    assert {tuple(entry["ranks"]) for entry in files} == {("cpu.0", "cpu.1"), ("cpu.2", "cpu.3")}
    for graph in ("request", "time"):
        assert all("ranks" not in entry for entry in entries(on_processors, "denoiser_high", graph))
    check = cast("dict[str, Any]", Manifest.read(on_processors).check)["graphs"]["denoiser_high/step"]
    assert check["compared"] == {"engine": "float32"}, "the engine is what all ranks give"


@pytest.mark.parametrize(
    ("ulysses", "said"),
    [
        pytest.param(4, "1 head a device has no fused kernel", marks=pytest.mark.slow),
        pytest.param(3, "4 heads of attention cannot be divided by 3", marks=pytest.mark.slow),
    ],
)
def test_what_cannot_be_split_is_refused_by_the_plan(folder: Path, ulysses: int, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        built(folder, f"partition.ulysses={ulysses}", "partition.stages=1")
