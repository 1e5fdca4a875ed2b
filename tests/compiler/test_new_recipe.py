"""`wanc recipe new` opens what it is given, and what it prints fits: saved, it passes `wanc recipe check`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import onnx.parser
import pytest

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from tests.models.refusals import edit
from wanc.recipe.load import load
from wanc.recipe.schema import Recipe

from ..conftest import ROOT, Wanc

MODULE = """\
import torch


class Encoder(torch.nn.Module):
    def forward(self, ids, scale, mask=None):
        return ids * scale


def helper(x):
    return x


def build():
    return Encoder()
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def new(wanc: Wanc, *arguments: object) -> tuple[Recipe, str]:
    """What is printed, as a recipe that was checked and as text."""
    finished = wanc("recipe", "new", *arguments)
    assert (finished.code, finished.err) == (0, "")
    Path("new.yaml").write_text(finished.out)
    checked = wanc("recipe", "check", "new.yaml")
    assert (checked.code, checked.err) == (0, "")
    return load("new.yaml")[0].recipe, finished.out


@pytest.mark.parametrize("layout", ["diffusers", "original"])
@pytest.mark.parametrize("name", ["wan2.1-t2v-1.3b", "wan2.2-t2v-a14b"])
def test_a_checkpoint_of_either_layout(name: str, layout: str, wanc: Wanc) -> None:
    make(MODELS[name], layout, Path("model"), seed=1, sparse=True)
    recipe, text = new(wanc, "model", "--name", name)
    two = name == "wan2.2-t2v-a14b"
    assert (recipe.name, recipe.model.source) == (name, Path("model").resolve())
    assert [(shape.height, shape.width, shape.frames) for shape in recipe.shapes] == [(480, 832, 81)]
    assert (recipe.sampling.guidance.high, recipe.sampling.guidance.low) == ((4.0, 3.0) if two else (5.0, 5.0))
    assert recipe.sampling.shift == 12.0 if two else recipe.sampling.shift != 12.0
    components = (
        "text_encoder, denoiser_high, denoiser_low, vae_decoder" if two else "text_encoder, denoiser_high, vae_"
    )
    assert f"# It has {components}" in text and "reads 512 tokens of a prompt" in text
    assert ("# boundary: 0.875" in text) is two


def test_what_the_checkpoint_does_not_say_the_recipe_says(wanc: Wanc) -> None:
    shutil.copytree(ROOT / "models/tiny-wan", "model")
    index = json.loads(Path("model/model_index.json").read_text())
    Path("model/model_index.json").write_text(json.dumps({**index, "boundary_ratio": None}))
    recipe, _ = new(wanc, "model")
    assert recipe.sampling.boundary == 0.875
    assert (recipe.shapes[0].height, recipe.shapes[0].frames) == (64, 17), "small models make small videos"
    assert recipe.sampling.shift == 4.0, "of its scheduler's configuration"


TINY, CAUSAL = ROOT / "models" / "tiny-wan", ROOT / "models" / "tiny-wan-causal"


@pytest.mark.parametrize(
    ("said", "cache"),
    [
        ({}, (1, 6, 0)),
        ({"num_frame_per_block": 3, "local_attn_size": 21, "sink_size": 3}, (3, 5, 1)),
        ({"num_frame_per_block": None, "local_attn_size": 12}, (3, 3, 0)),
        ({"num_frame_per_block": 4, "sink_size": 8, "local_attn_size": 2**60}, (4, 1024, 2)),
    ],
    ids=str,
)
def test_a_causal_model(said: dict[str, object], cache: tuple[int, int, int], wanc: Wanc) -> None:
    shutil.copytree(CAUSAL, "model")
    edit(Path("model/transformer/config.json"), **said)
    recipe, text = new(wanc, "model", "--companion", TINY)
    assert (recipe.model.family, recipe.model.companion) == ("wan-causal", TINY)
    kept = recipe.runtime.kv_cache
    assert kept is not None and (kept.chunk, kept.window, kept.sink) == cache
    assert ("does not say how many" in text) is (said.get("num_frame_per_block", 1) is None)
    assert (recipe.sampling.solver, recipe.sampling.shift) == ("unipc", 4.0), "of its companion's scheduler"


@pytest.mark.parametrize(
    ("name", "timesteps", "shift"),
    [("Self-Forcing-1.3B", (1000, 750, 500, 250), 5.0), ("causvid", (1000, 757, 522), 1.0)],
)
def test_a_distilled_one_is_known_by_its_name(name: str, timesteps: tuple[int, ...], shift: float, wanc: Wanc) -> None:
    shutil.copytree(CAUSAL, name)
    sampling = new(wanc, name, "--companion", TINY)[0].sampling
    assert (sampling.solver, sampling.timesteps, sampling.shift) == ("lcm", timesteps, shift)
    assert (sampling.guidance.high, sampling.guidance.low) == (1.0, 1.0)


def test_denoisers_alone_want_a_companion(wanc: Wanc) -> None:
    finished = wanc("recipe", "new", CAUSAL)
    assert (finished.code, finished.out) == (65, "")
    assert finished.err == (
        f"error: {CAUSAL}: the model has no component text_encoder\n"
        "hint: of denoisers alone name a checkpoint with the text encoder, the tokenizer and the VAE: "
        "--companion FOLDER\n"
    )
    finished = wanc("recipe", "new", CAUSAL, "--companion", "nowhere")
    assert (finished.code, finished.out) == (65, "") and "nowhere: no such folder" in finished.err


@pytest.mark.parametrize(
    ("inputs", "example"),
    [
        ("float[batch, 3, height, width] image", {"batch": 1, "height": 64, "width": 64}),
        ("int64[batch_size, sequence] ids, float[sequence] weights", {"batch_size": 1, "sequence": 8}),
        ("float[2, 3] image", None),
    ],
)
def test_an_onnx_file(inputs: str, example: dict[str, int] | None, wanc: Wanc) -> None:
    name = inputs.partition(",")[0] if "]" in inputs.partition(",")[0] else inputs
    first = inputs.split("] ")[1].split(",")[0]
    graph = f"g ({inputs}) => (int64[d] y) {{ y = Shape ({first}) }}"
    onnx.save(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> {graph}'), "net v2.onnx")
    recipe, text = new(wanc, "net v2.onnx")
    assert (recipe.name, recipe.model.example) == ("net-v2", example), name
    assert f"# {first}: " in text


@pytest.mark.parametrize("file", ["encoder.py", "package/inner/encoder.py", "package/inner"])
def test_a_python_module(file: str, wanc: Wanc) -> None:
    Path("package/inner").mkdir(parents=True)
    for place in ("package/__init__.py", "package/inner/__init__.py", "package/inner/encoder.py", "encoder.py"):
        Path(place).write_text("" if place == "package/__init__.py" else MODULE)
    recipe, _ = new(wanc, file)
    module = {"encoder.py": "encoder", "package/inner": "package.inner"}.get(file, "package.inner.encoder")
    assert recipe.model.torch == f"{module}:build"
    assert [(entry.name, entry.dtype) for entry in recipe.model.inputs] == [("ids", "int64"), ("scale", "float32")]


@pytest.mark.parametrize(
    ("source", "code", "said", "hint"),
    [
        ("tiny-van", 66, "error: tiny-van: no such file or folder", "hint: did you mean tiny-wan?"),
        ("empty", 65, "error: empty: not a Wan checkpoint in either layout", "hint: the diffusers layout has a"),
        ("plain.py", 2, "error: plain.py: it has no function without arguments", "hint: write one that returns the"),
        ("broken.py", 2, "error: broken.py: cannot be read as Python", "broken.py"),
        ("tiny-wan --name a/b", 2, "error: a/b is no name for a recipe", "hint: it has to be letters"),
    ],
)
def test_what_is_nothing_to_start_from(source: str, code: int, said: str, hint: str, wanc: Wanc) -> None:
    Path("tiny-wan").symlink_to(ROOT / "models/tiny-wan")
    Path("empty").mkdir()
    Path("plain.py").write_text("x = 3\n")
    Path("broken.py").write_text("def build(:\n")
    finished = wanc("recipe", "new", *source.split())
    assert (finished.code, finished.out) == (code, "")
    assert finished.err.startswith(f"{said}\n") and hint in finished.err
