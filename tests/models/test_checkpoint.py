"""Reading checkpoints: every weight is where its own reader finds it, and every fault has a message of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.checkpoints import write_checkpoint
from wanc.errors import EXIT_DATA, CheckpointError, render
from wanc.models.wan.checkpoint import Component, embedding, open_checkpoint

DTYPES = {torch.float32: "FLOAT", torch.bfloat16: "BFLOAT16", torch.float16: "FLOAT16"}
STEM = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("single"), seed=1)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("sharded"), seed=2, dtype=torch.bfloat16, shards=3)


@pytest.fixture
def model(single: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(single, tmp_path / "model")


@pytest.fixture
def shards(sharded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sharded, tmp_path / "shards")


def refusal(root: Path, components: tuple[str, ...] | None = None) -> str:
    """What people see of the refusal, with the checkpoint's folder as MODEL."""
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(root, components)
    assert caught.value.exit_code == EXIT_DATA
    return render(caught.value).replace(str(root), "MODEL")


def edit(path: Path, **changes: Any) -> None:
    """Change some keys of a JSON file; None removes."""
    document = json.loads(path.read_text())
    document |= changes
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))


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
    assert checkpoint.files == ("model_index.json", "vae/config.json", f"vae/{STEM}.safetensors")


def test_a_model_with_one_expert(tmp_path: Path) -> None:
    root = write_checkpoint(tmp_path, seed=3, experts=1)
    assert json.loads((root / "model_index.json").read_text())["transformer_2"] == [None, None]
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


def test_the_embedding_has_either_name(single: Path) -> None:
    component = open_checkpoint(single).components["text_encoder"]
    table = embedding(component)
    assert table == component.weights["shared.weight"]
    renamed = Component("text_encoder", {}, {"encoder.embed_tokens.weight": table})
    assert embedding(renamed) == table
    with pytest.raises(CheckpointError) as caught:
        embedding(Component("text_encoder", {}, {}))
    assert str(caught.value) == "text_encoder: the weights hold no shared.weight or encoder.embed_tokens.weight"


def drop(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def change(name: str, **changes: Any) -> Callable[[Path], None]:
    return lambda root: edit(root / name, **changes)


def put(name: str, text: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        (root / name).write_text(text)

    return write


I2V = "error: MODEL/transformer/config.json: image-to-video models are not built yet; today wanc compiles text-to-video"
REFUSALS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no model_index.json": (
        drop("model_index.json"),
        "error: MODEL/model_index.json: missing file\ncaused by: No such file or directory",
    ),
    "broken model_index.json": (
        put("model_index.json", "{"),
        "error: MODEL/model_index.json: not a readable JSON file\n"
        "caused by: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    ),
    "model_index.json is a list": (
        put("model_index.json", "[]"),
        "error: MODEL/model_index.json: a JSON object was expected",
    ),
    "another pipeline": (
        change("model_index.json", _class_name="FluxPipeline"),
        "error: MODEL/model_index.json: this is a FluxPipeline; wanc reads WanPipeline checkpoints",
    ),
    "no config.json": (
        drop("vae/config.json"),
        "error: MODEL/vae/config.json: missing file\ncaused by: No such file or directory",
    ),
    "another transformer": (
        change("transformer_2/config.json", _class_name="FluxTransformer2DModel"),
        "error: MODEL/transformer_2/config.json: its class is FluxTransformer2DModel; "
        "WanTransformer3DModel was expected",
    ),
    "another text encoder": (
        change("text_encoder/config.json", architectures=["T5EncoderModel"]),
        "error: MODEL/text_encoder/config.json: its class is T5EncoderModel; UMT5EncoderModel was expected",
    ),
    "image-to-video by channels": (change("transformer/config.json", in_channels=36), I2V),
    "image-to-video by image_dim": (change("transformer/config.json", image_dim=1280), I2V),
    "image-to-video by added projections": (change("transformer/config.json", added_kv_proj_dim=24), I2V),
    "residual VAE": (
        change("vae/config.json", is_residual=True),
        "error: MODEL/vae/config.json: the residual VAE of Wan 2.2 5B is not built yet; "
        "today wanc compiles the 2.1 VAE of the A14B models",
    ),
    "no weights": (
        drop(f"vae/{STEM}.safetensors"),
        f"error: MODEL/vae/{STEM}.safetensors: missing weights\nhint: is the download complete?",
    ),
    "no tokenizer": (
        drop("tokenizer/tokenizer.json"),
        "error: MODEL/tokenizer/tokenizer.json: missing tokenizer",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(model: Path, name: str) -> None:
    damage, expected = REFUSALS[name]
    damage(model)
    assert refusal(model) == expected


def test_no_such_folder(tmp_path: Path) -> None:
    hint = "\nhint: model.source is a folder in the diffusers layout, with a model_index.json"
    assert refusal(tmp_path / "nowhere") == f"error: MODEL: no such folder{hint}"
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file") == f"error: MODEL: not a folder{hint}"


def first_shard(root: Path) -> Path:
    return min((root / "transformer").glob("*.safetensors"))


def test_a_missing_shard(shards: Path) -> None:
    shard = first_shard(shards)
    shard.unlink()
    assert refusal(shards) == (
        f"error: MODEL/transformer/{shard.name}: missing weights\nhint: is the download complete?"
    )


@pytest.mark.parametrize("kept", [-1, 100, 4, 0])
def test_a_truncated_shard(shards: Path, kept: int) -> None:
    shard = first_shard(shards)
    shard.write_bytes(shard.read_bytes()[:kept])
    lines = refusal(shards).splitlines()
    assert lines[0] == f"error: MODEL/transformer/{shard.name}: not a readable safetensors file"
    assert lines[1].startswith(f"caused by: MODEL/transformer/{shard.name}: not a sound safetensors file: ")
    assert len(lines) == 2


def test_the_cause_of_a_truncated_shard_counts_bytes(shards: Path) -> None:
    shard = first_shard(shards)
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-1])
    assert refusal(shards).endswith(f"the tensors end at byte {size} of {size - 1}")


def test_an_index_that_names_an_absent_tensor(shards: Path) -> None:
    index = shards / f"transformer/{STEM}.safetensors.index.json"
    located = json.loads(index.read_text())["weight_map"]
    shard = first_shard(shards).name
    edit(index, weight_map={**located, "blocks.9.attn1.to_q.weight": shard})
    assert refusal(shards) == (
        f"error: MODEL/transformer/{index.name}: the index names blocks.9.attn1.to_q.weight, "
        f"which {shard} does not hold"
    )


@pytest.mark.parametrize(
    "weight_map", [None, [], {"proj_out.weight": 1}, {"proj_out.weight": f"../transformer_2/{STEM}.safetensors"}]
)
def test_an_index_that_is_no_list_of_the_folders_own_files(model: Path, weight_map: object) -> None:
    index = model / f"transformer/{STEM}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert refusal(model) == (
        f"error: MODEL/transformer/{index.name}: weight_map must name a file of this folder for each tensor"
    )


def test_weights_of_an_unknown_dtype(model: Path) -> None:
    path = model / f"vae/{STEM}.safetensors"
    save_file({"decoder.conv_in.bias": torch.zeros(3, dtype=torch.int8)}, path)
    assert refusal(model) == (
        f"error: MODEL/vae/{STEM}.safetensors: decoder.conv_in.bias has dtype I8; wanc reads F32, F16, BF16"
    )


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
