"""Every fault of a checkpoint in the diffusers layout has a message of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints import write_checkpoint

from .refusals import change, drop, edit, put, refusal

STEM = "diffusion_pytorch_model"

LAYOUTS = (
    "the diffusers layout has a model_index.json; the original layout has high_noise_model/ and low_noise_model/, or, "
    "for a single expert, a config.json beside its diffusion_pytorch_model*.safetensors"
)
I2V = "error: MODEL/transformer/config.json: image-to-video models are not built yet; today wanc compiles text-to-video"
REFUSALS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no model_index.json": (
        drop("model_index.json"),
        f"error: MODEL: not a Wan checkpoint in either layout\nhint: {LAYOUTS}",
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
    **{
        f"a scheduler of another {key}": (
            change("scheduler/scheduler_config.json", **{key: value}),
            f"error: MODEL/scheduler/scheduler_config.json: {key} is {json.dumps(value)}; it must be {wanted}\n"
            f"hint: if the model can do without, let it pass: `allow: [{key}]` under model",
        )
        for key, value, wanted in (
            ("prediction_type", "epsilon", '"flow_prediction"'),
            ("num_train_timesteps", 5000, "1000"),
            ("use_flow_sigmas", False, "true"),
            ("flow_shift", 0, "a number above 0"),
        )
    },
    "a VAE whose output is not the video": (
        change("vae/config.json", out_channels=12),
        "error: MODEL/vae/config.json: out_channels is 12; it must be 3",
    ),
    "residual VAE": (
        change("vae/config.json", is_residual=True),
        "error: MODEL/vae/config.json: the residual VAE of Wan 2.2 5B is not built yet; "
        "today wanc compiles the 2.1 VAE of the A14B models",
    ),
    "TI2V": (
        change("model_index.json", expand_timesteps=True),
        "error: MODEL/model_index.json: models with a timestep per token (TI2V-5B) are not built yet; "
        "today wanc compiles text-to-video",
    ),
    "a boundary that is text": (
        change("model_index.json", boundary_ratio="0.875"),
        'error: MODEL/model_index.json: boundary_ratio is "0.875"; it must be null or a number above 0 and at most 1',
    ),
    "a boundary in timesteps": (
        change("model_index.json", boundary_ratio=875),
        "error: MODEL/model_index.json: boundary_ratio is 875; it must be null or a number above 0 and at most 1",
    ),
    "a key twice": (
        put("transformer/config.json", '{"num_layers": 1, "num_layers": 2}'),
        "error: MODEL/transformer/config.json: not a readable JSON file\ncaused by: duplicate key 'num_layers'",
    ),
    "JSON nested too deep": (
        put("transformer/config.json", '{"a":' + "[" * 40 + "]" * 40 + "}"),
        "error: MODEL/transformer/config.json: not a readable JSON file\ncaused by: nested deeper than 32",
    ),
    "JSON that would overflow the stack": (
        put("transformer/config.json", "[" * 100_000),
        "error: MODEL/transformer/config.json: not a readable JSON file\n"
        "caused by: maximum recursion depth exceeded while decoding a JSON array from a unicode string",
    ),
    "JSON without end": (
        put("transformer/config.json", " " * (4 * 2**20 + 1)),
        "error: MODEL/transformer/config.json: more than 4194304 bytes of JSON",
    ),
    "a number of layers that is text": (
        change("transformer/config.json", num_layers="40"),
        'error: MODEL/transformer/config.json: num_layers is "40"; it must be a whole number from 1 to 1000',
    ),
    "a negative number of layers": (
        change("text_encoder/config.json", num_layers=-1),
        "error: MODEL/text_encoder/config.json: num_layers is -1; it must be a whole number from 1 to 1000",
    ),
    "true for a number": (
        change("transformer/config.json", ffn_dim=True),
        "error: MODEL/transformer/config.json: ffn_dim is true; it must be a whole number from 1 to 1048576",
    ),
    "an epsilon that is no number": (
        change("transformer/config.json", eps=float("nan")),
        "error: MODEL/transformer/config.json: eps is NaN; it must be a number above 0",
    ),
    "heads of an odd width": (
        change("transformer/config.json", attention_head_dim=13),
        "error: MODEL/transformer/config.json: attention_head_dim is 13; it must be an even number from 2 to 1024",
    ),
    "patches in time": (
        change("transformer/config.json", patch_size=[2, 2, 2]),
        "error: MODEL/transformer/config.json: patch_size is [2, 2, 2]; it must be [1, height, width]",
    ),
    "another normalisation": (
        change("transformer/config.json", qk_norm="layer_norm"),
        'error: MODEL/transformer/config.json: qk_norm is "layer_norm"; it must be "rms_norm_across_heads"',
    ),
    "another activation": (
        change("text_encoder/config.json", feed_forward_proj="relu"),
        'error: MODEL/text_encoder/config.json: feed_forward_proj is "relu"; it must be "gated-gelu"',
    ),
    "buckets past the distance": (
        change("text_encoder/config.json", relative_attention_max_distance=4),
        "error: MODEL/text_encoder/config.json: relative_attention_max_distance must be above 4, "
        "the distances with a bucket of their own",
    ),
    "levels that do not agree": (
        change("vae/config.json", temperal_downsample=[True, True]),
        "error: MODEL/vae/config.json: temperal_downsample must have one entry less than dim_mult, which has 2",
    ),
    "statistics of other latents": (
        change("vae/config.json", latents_mean=[0.0] * 4),
        "error: MODEL/vae/config.json: latents_mean has 4 entries; z_dim is 16",
    ),
    "a standard deviation of zero": (
        change("vae/config.json", latents_std=[0.0] * 16),
        f"error: MODEL/vae/config.json: latents_std is {str([0.0] * 16)[:60]}…; "
        "it must be a list of at most 1024, each a number above 0",
    ),
    "a text encoder of another model": (
        lambda root: replace_part(root, "text_encoder", text_dim=24),
        "error: MODEL: text_dim of denoiser_high is 16, and d_model of text_encoder is 24: they are not of one model",
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


def replace_part(root: Path, folder: str, **sizes: Any) -> None:
    """Put in a part of another checkpoint."""
    other = write_checkpoint(root.parent / "other", seed=5, **sizes)
    shutil.rmtree(root / folder)
    shutil.copytree(other / folder, root / folder)


REQUIRED = {
    "text_encoder": ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size"),
    "transformer": (
        "patch_size", "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "text_dim",
        "ffn_dim", "num_layers", "rope_max_seq_len",
    ),
    "vae": ("base_dim", "z_dim", "dim_mult", "num_res_blocks", "temperal_downsample", "latents_mean", "latents_std"),
}  # fmt: skip


@pytest.mark.parametrize(("folder", "key"), [(folder, key) for folder, keys in REQUIRED.items() for key in keys])
def test_a_key_that_is_missing(model: Path, folder: str, key: str) -> None:
    edit(model / folder / "config.json", **{key: None})
    assert refusal(model) == f"error: MODEL/{folder}/config.json: has no {key}"


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(model: Path, name: str) -> None:
    damage, expected = REFUSALS[name]
    damage(model)
    assert refusal(model) == expected


def test_no_such_folder(tmp_path: Path) -> None:
    hint = f"\nhint: {LAYOUTS}"
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


def test_a_shard_that_git_lfs_has_not_fetched(shards: Path) -> None:
    shard = first_shard(shards)
    shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4999\n")
    assert refusal(shards).splitlines()[-1] == (
        "hint: this is a pointer of git-lfs, not the file itself: run git lfs pull"
    )


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


def test_an_index_that_leaves_a_tensor_out(shards: Path) -> None:
    index = shards / f"transformer/{STEM}.safetensors.index.json"
    located = json.loads(index.read_text())["weight_map"]
    file = located.pop("proj_out.bias")
    edit(index, weight_map=located)
    assert refusal(shards) == f"error: MODEL/transformer/{file}: holds proj_out.bias, which {index.name} does not list"


def test_an_index_that_names_the_wrong_shard(shards: Path) -> None:
    index = shards / f"transformer/{STEM}.safetensors.index.json"
    located = json.loads(index.read_text())["weight_map"]
    wrong = next(file for file in located.values() if file != located["proj_out.bias"])
    edit(index, weight_map={**located, "proj_out.bias": wrong})
    assert refusal(shards) == (
        f"error: MODEL/transformer/{index.name}: the index names proj_out.bias, which {wrong} does not hold"
    )


def test_a_tensor_too_few_too_many_or_of_another_shape(model: Path) -> None:
    path = model / "vae" / f"{STEM}.safetensors"
    sound = load_file(path)
    name = "decoder.conv_in.bias"
    where = f"error: MODEL/vae/{STEM}.safetensors"
    save_file({key: value for key, value in sound.items() if key != name}, path)
    assert refusal(model) == f"{where}: the weights hold no tensor named {name}"
    save_file({**sound, "decoder.conv_in.scale": torch.ones(1)}, path)
    assert refusal(model) == (
        f"{where}: holds decoder.conv_in.scale, a tensor that a model of this configuration does not have"
    )
    save_file({**sound, name: torch.ones(3)}, path)
    assert refusal(model) == f"{where}: {name} has shape [3]; its configuration asks for [8]"


def test_a_configuration_of_more_layers_than_there_are(model: Path) -> None:
    edit(model / "transformer/config.json", num_layers=2)
    assert refusal(model) == (
        f"error: MODEL/transformer/{STEM}.safetensors: the weights hold no tensor named blocks.1.scale_shift_table"
    )


@pytest.mark.parametrize(
    "weight_map",
    [
        None,
        [],
        {"proj_out.weight": 1},
        {"proj_out.weight": f"../transformer_2/{STEM}.safetensors"},
        {"proj_out.weight": ".."},
        {"proj_out.weight": "a\0b"},
        {"proj_out.weight": "a" * 300},
        {"proj_out.weight": ""},
    ],
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
        f"error: MODEL/vae/{STEM}.safetensors: decoder.conv_in.bias has dtype I8; wanc reads F32, F16, BF16\n"
        "hint: take the same model in bfloat16, float16 or float32"
    )


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_weights_in_float8_are_sound_and_not_read_yet(model: Path, dtype: torch.dtype) -> None:
    path = model / f"vae/{STEM}.safetensors"
    save_file({"decoder.conv_in.bias": torch.zeros(3).to(dtype)}, path)
    name = {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}[dtype]
    assert refusal(model) == (
        f"error: MODEL/vae/{STEM}.safetensors: float8 weights are not read yet: decoder.conv_in.bias has the "
        f"dtype '{name}'; known are F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL\n"
        "hint: take the same model in bfloat16, float16 or float32"
    )
