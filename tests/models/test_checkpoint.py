"""The diffusers layout: every weight is where its own reader finds it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.checkpoints import write_checkpoint
from wanc.models.wan.checkpoint import Component, embedding, open_checkpoint

from .refusals import edit, refusal

DTYPES = {torch.float32: "FLOAT", torch.bfloat16: "BFLOAT16", torch.float16: "FLOAT16"}
STEM = "diffusion_pytorch_model"
EMBEDDING_NAMES = ("shared.weight", "encoder.embed_tokens.weight")


def stored_tensors(root: Path, component: Component) -> dict[str, tuple[str, torch.Tensor]]:
    """Name → (file, values) of every tensor in a component's folder, as the safetensors library reads them."""
    found: dict[str, tuple[str, torch.Tensor]] = {}
    for path in sorted((root / component.folder).glob("*.safetensors")):
        with safe_open(path, framework="pt") as reader:
            names = list(reader.keys())
            found |= {name: (path.relative_to(root).as_posix(), reader.get_tensor(name)) for name in names}
    return found


@pytest.mark.parametrize("layout", ["single", "sharded"])
def test_every_weight_lies_where_safetensors_finds_it(layout: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(layout)
    checkpoint = open_checkpoint(root)
    assert list(checkpoint.components) == ["text_encoder", "denoiser_high", "denoiser_low", "vae_decoder"]
    for component in checkpoint.components.values():
        expected = stored_tensors(root, component)
        assert component.weights.keys() == expected.keys()
        for name, weight in component.weights.items():
            file, values = expected[name]
            assert (weight.file, weight.shape, weight.dtype) == (file, tuple(values.shape), DTYPES[values.dtype])
            with (root / weight.file).open("rb") as stream:
                stream.seek(weight.offset)
                data = stream.read(weight.length)
            assert data == values.contiguous().view(torch.uint8).numpy().tobytes(), name


def test_shards_are_really_several_files(sharded: Path) -> None:
    components = open_checkpoint(sharded).components
    assert len({weight.file for weight in components["denoiser_high"].weights.values()}) >= 3
    assert len({weight.file for weight in components["vae_decoder"].weights.values()}) == 1


def test_the_facts_of_the_model(single: Path) -> None:
    checkpoint = open_checkpoint(single)
    assert (checkpoint.root, checkpoint.boundary, checkpoint.text_length) == (single, 0.875, 16)
    assert (checkpoint.layout, checkpoint.tokenizer) == ("diffusers", "tokenizer/tokenizer.json")
    folders = {name: component.folder for name, component in checkpoint.components.items()}
    assert folders == {
        "text_encoder": "text_encoder",
        "denoiser_high": "transformer",
        "denoiser_low": "transformer_2",
        "vae_decoder": "vae",
    }
    assert checkpoint.components["denoiser_high"].config["num_attention_heads"] == 2


@pytest.mark.parametrize("layout", ["single", "sharded"])
def test_files_are_all_that_is_used_and_nothing_else(layout: str, request: pytest.FixtureRequest) -> None:
    root: Path = request.getfixturevalue(layout)
    everything = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    unused = {name for name in everything if name.startswith("scheduler/") or name.endswith(".index.json")}
    assert open_checkpoint(root).files == tuple(sorted(everything - unused))


def test_parts_that_were_not_asked_for_may_be_missing(model: Path) -> None:
    for folder in ("text_encoder", "tokenizer", "transformer", "transformer_2"):
        shutil.rmtree(model / folder)
    checkpoint = open_checkpoint(model, ("vae_decoder",))
    assert list(checkpoint.components) == ["vae_decoder"]
    assert checkpoint.tokenizer is None
    assert checkpoint.files == ("model_index.json", "vae/config.json", f"vae/{STEM}.safetensors")


@pytest.mark.parametrize("entry", [[None, None], None, "left out"])
def test_a_model_with_one_expert(tmp_path: Path, entry: object) -> None:
    root = write_checkpoint(tmp_path, seed=3, experts=1)
    index = json.loads((root / "model_index.json").read_text())
    index["transformer_2"] = entry
    if entry == "left out":
        del index["transformer_2"]
    (root / "model_index.json").write_text(json.dumps(index))
    checkpoint = open_checkpoint(root)
    assert list(checkpoint.components) == ["text_encoder", "denoiser_high", "vae_decoder"]
    assert checkpoint.boundary is None
    assert refusal(root, ("denoiser_high", "denoiser_low")) == (
        "error: MODEL: the model has no component denoiser_low\nhint: it has: text_encoder, denoiser_high, vae_decoder"
    )


@pytest.mark.parametrize(
    ("declared", "expected"),
    [(1, 1), (16, 16), (512, 512), (513, 512), (int(1e30), 512), (1e30, 512), (None, 512)],
)
def test_text_length_is_what_the_tokenizer_declares_up_to_512(
    model: Path, declared: float | None, expected: int
) -> None:
    edit(model / "tokenizer/tokenizer_config.json", model_max_length=declared)
    assert open_checkpoint(model).text_length == expected


def test_a_tokenizer_may_declare_nothing(model: Path) -> None:
    (model / "tokenizer/tokenizer_config.json").unlink()
    checkpoint = open_checkpoint(model)
    assert checkpoint.text_length == 512
    assert "tokenizer/tokenizer_config.json" not in checkpoint.files


@pytest.mark.parametrize("names", [("shared.weight",), ("encoder.embed_tokens.weight",), EMBEDDING_NAMES])
def test_the_embedding_may_be_stored_under_either_name_or_both(model: Path, names: tuple[str, ...]) -> None:
    path = model / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    table = next(tensors.pop(name) for name in EMBEDDING_NAMES if name in tensors)
    save_file({**tensors, **{name: table.clone() for name in names}}, path)
    component = open_checkpoint(model).components["text_encoder"]
    weight = embedding(component)
    assert not component.weights.keys() & {"encoder.embed_tokens.weight"}
    data = path.read_bytes()[weight.offset : weight.offset + weight.length]
    assert data == table.numpy().tobytes()


def test_one_seed_is_one_checkpoint(single: Path, tmp_path: Path) -> None:
    again = write_checkpoint(tmp_path, seed=1)
    for path in single.rglob("*.*"):
        assert (again / path.relative_to(single)).read_bytes() == path.read_bytes(), path.name


def test_reading_needs_no_torch(single: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from wanc.models.wan.checkpoint import open_checkpoint\n"
        "open_checkpoint(Path(sys.argv[1]))\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'onnx'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(single)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_weights_of_different_seeds_differ(single: Path, sharded: Path) -> None:
    first, second = (
        stored_tensors(root, open_checkpoint(root).components["vae_decoder"]) for root in (single, sharded)
    )
    name = "decoder.conv_in.weight"
    assert not np.allclose(first[name][1].numpy(), second[name][1].float().numpy(), rtol=0.1)
