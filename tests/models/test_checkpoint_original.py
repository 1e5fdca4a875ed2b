"""The original code's layout: what is opened, and a message of its own for every fault."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc.models.wan.checkpoint import embedding, open_checkpoint

from .refusals import change, drop, edit, refusal

STEM = "diffusion_pytorch_model"
T5 = "models_t5_umt5-xxl-enc-bf16"
VAE = "Wan2.1_VAE"


@pytest.fixture(scope="module")
def two_experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("original") / "two"
    make(MODELS["tiny"], "original", root, seed=1)
    return root


@pytest.fixture(scope="module")
def one_expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Wan2.1-T2V-1.3B lies on disk, whose denoiser is one file."""
    root = tmp_path_factory.mktemp("original") / "one"
    model = MODELS["tiny"]
    make(type(model)(**{**vars(model), "boundary": None, "shard_bytes": 10**9}), "original", root, seed=1)
    return root


@pytest.fixture
def model(two_experts: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(two_experts, tmp_path / "model")


def test_a_model_with_two_experts(two_experts: Path) -> None:
    checkpoint = open_checkpoint(two_experts)
    assert checkpoint.layout == "original"
    assert list(checkpoint.components) == ["text_encoder", "denoiser_high", "denoiser_low", "vae_decoder"]
    assert (checkpoint.boundary, checkpoint.text_length) == (0.875, 64)
    assert checkpoint.tokenizer == "google/umt5-xxl/tokenizer.json"
    folders = {name: component.folder for name, component in checkpoint.components.items()}
    assert folders == {
        "text_encoder": ".",
        "denoiser_high": "high_noise_model",
        "denoiser_low": "low_noise_model",
        "vae_decoder": ".",
    }
    assert len({weight.file for weight in checkpoint.components["denoiser_high"].weights.values()}) == 3
    assert embedding(checkpoint.components["text_encoder"]).shape == (163, 32)


def test_a_model_with_one_expert(one_expert: Path) -> None:
    checkpoint = open_checkpoint(one_expert)
    assert list(checkpoint.components) == ["text_encoder", "denoiser_high", "vae_decoder"]
    assert (checkpoint.layout, checkpoint.boundary) == ("original", None)
    files = {weight.file for weight in checkpoint.components["denoiser_high"].weights.values()}
    assert files == {f"{STEM}.safetensors"}
    assert refusal(one_expert, ("denoiser_low",)) == (
        "error: MODEL: the model has no component denoiser_low\nhint: it has: text_encoder, denoiser_high, vae_decoder"
    )


def test_one_expert_in_shards(model: Path) -> None:
    for path in (model / "high_noise_model").iterdir():
        path.rename(model / path.name)
    shutil.rmtree(model / "high_noise_model")
    shutil.rmtree(model / "low_noise_model")
    checkpoint = open_checkpoint(model)
    assert list(checkpoint.components) == ["text_encoder", "denoiser_high", "vae_decoder"]
    files = {weight.file for weight in checkpoint.components["denoiser_high"].weights.values()}
    assert files == {f"{STEM}-0000{number}-of-00003.safetensors" for number in (1, 2, 3)}


def test_files_are_all_that_is_used_and_nothing_else(two_experts: Path) -> None:
    everything = {path.relative_to(two_experts).as_posix() for path in two_experts.rglob("*") if path.is_file()}
    unused = {name for name in everything if name.endswith((".index.json", "tokenizer_config.json"))}
    assert open_checkpoint(two_experts).files == tuple(sorted(everything - unused))


def test_parts_that_were_not_asked_for_may_be_missing(model: Path) -> None:
    for path in (f"{T5}.safetensors", "google/umt5-xxl/tokenizer.json"):
        (model / path).unlink()
    for path in (model / "low_noise_model").glob("*.safetensors"):
        path.unlink()
    checkpoint = open_checkpoint(model, ("vae_decoder",))
    assert list(checkpoint.components) == ["vae_decoder"]
    assert checkpoint.tokenizer is None
    assert checkpoint.files == (f"{VAE}.safetensors", "high_noise_model/config.json", "low_noise_model/config.json")


def test_what_a_configuration_leaves_out_is_what_the_code_has(model: Path) -> None:
    for folder in ("high_noise_model", "low_noise_model"):
        edit(model / folder / "config.json", patch_size=[1, 2, 2], qk_norm=True, window_size=[-1, -1])
    written = open_checkpoint(model, ("denoiser_high",)).components["denoiser_high"].config
    for folder in ("high_noise_model", "low_noise_model"):
        edit(model / folder / "config.json", patch_size=None, qk_norm=None, window_size=None)
    assert open_checkpoint(model, ("denoiser_high",)).components["denoiser_high"].config == written
    edit(model / "high_noise_model" / "config.json", text_dim=None)
    assert refusal(model, ("denoiser_high",)).endswith(
        "text_embedding.0.weight has shape [32, 32]; its configuration asks for [32, 4096]"
    )


def as_pickle(stem: str) -> Callable[[Path], None]:
    return lambda root: (root / f"{stem}.safetensors").rename(root / f"{stem}.pth") and None


def tensors(name: str, **changes: torch.Tensor | None) -> Callable[[Path], None]:
    """Change some tensors of a file; None removes. A double underscore stands for a dot."""

    def write(root: Path) -> None:
        merged = {**load_file(root / name), **{key.replace("__", "."): value for key, value in changes.items()}}
        save_file({key: value for key, value in merged.items() if value is not None}, root / name)

    return write


HIGH = "high_noise_model/config.json"
SHARD = f"high_noise_model/{STEM}-00001-of-00003.safetensors"
LAYOUTS = (
    "the diffusers layout has a model_index.json; the original layout has high_noise_model/ and low_noise_model/, or, "
    "for a single expert, a config.json beside its diffusion_pytorch_model*.safetensors"
)
REFUSALS: dict[str, tuple[Callable[[Path], None], str]] = {
    "one expert of two": (
        lambda root: shutil.rmtree(root / "low_noise_model"),
        "error: MODEL: has high_noise_model and no low_noise_model; the model has two experts\n"
        "hint: is the download complete? To build this expert alone, move what its folder holds out of it",
    ),
    "the other expert of two": (
        lambda root: shutil.rmtree(root / "high_noise_model"),
        "error: MODEL: has low_noise_model and no high_noise_model; the model has two experts\n"
        "hint: is the download complete? To build this expert alone, move what its folder holds out of it",
    ),
    "no expert": (
        lambda root: [shutil.rmtree(root / folder) for folder in ("high_noise_model", "low_noise_model")] and None,
        "error: MODEL: not a Wan checkpoint in either layout: Wan2.1_VAE.safetensors is a model in one file, without "
        f"its configuration: not supported yet\nhint: {LAYOUTS}",
    ),
    "the VAE as a pickle": (
        as_pickle(VAE),
        f"error: MODEL/{VAE}.pth: a pickle, which can run code when it is read: wanc reads safetensors only\n"
        f"hint: convert it once: wanc convert MODEL/{VAE}.pth",
    ),
    "the text encoder as a pickle": (
        as_pickle(T5),
        f"error: MODEL/{T5}.pth: a pickle, which can run code when it is read: wanc reads safetensors only\n"
        f"hint: convert it once: wanc convert MODEL/{T5}.pth",
    ),
    "no VAE": (
        drop(f"{VAE}.safetensors"),
        f"error: MODEL/{VAE}.safetensors: missing weights\nhint: is the download complete?",
    ),
    "no tokenizer": (
        drop("google/umt5-xxl/tokenizer.json"),
        "error: MODEL/google/umt5-xxl/tokenizer.json: missing tokenizer",
    ),
    "no config.json": (
        drop("low_noise_model/config.json"),
        "error: MODEL/low_noise_model/config.json: missing file\ncaused by: No such file or directory",
    ),
    "no shard": (drop(SHARD), f"error: MODEL/{SHARD}: missing weights\nhint: is the download complete?"),
    "another class": (
        change(HIGH, _class_name="WanTransformer3DModel"),
        f"error: MODEL/{HIGH}: its class is WanTransformer3DModel; WanModel was expected",
    ),
    "image-to-video": (
        change(HIGH, model_type="i2v"),
        f'error: MODEL/{HIGH}: models of type "i2v" are not built yet; today wanc compiles text-to-video, "t2v"',
    ),
    "text-and-image-to-video": (
        change(HIGH, model_type="ti2v"),
        f'error: MODEL/{HIGH}: models of type "ti2v" are not built yet; today wanc compiles text-to-video, "t2v"',
    ),
    "no type": (
        change(HIGH, model_type=None),
        f'error: MODEL/{HIGH}: models of type null are not built yet; today wanc compiles text-to-video, "t2v"',
    ),
    "image-to-video by channels": (
        change(HIGH, in_dim=36),
        f"error: MODEL/{HIGH}: image-to-video models are not built yet; today wanc compiles text-to-video",
    ),
    "no dim": (change(HIGH, dim=None), f"error: MODEL/{HIGH}: has no dim"),
    "layers that are text": (
        change(HIGH, num_layers="40"),
        f'error: MODEL/{HIGH}: num_layers is "40"; it must be a whole number from 1 to 1000',
    ),
    "a negative width": (
        change(HIGH, dim=-32),
        f"error: MODEL/{HIGH}: dim is -32; it must be a whole number from 1 to 1048576",
    ),
    "heads that do not divide": (
        change(HIGH, num_heads=3),
        f"error: MODEL/{HIGH}: dim is 32, which does not divide into 3 heads",
    ),
    "a head of odd width": (
        change(HIGH, num_heads=32),
        f"error: MODEL/{HIGH}: a head has 1 channels, dim by num_heads; it must be an even number from 2 to 1024",
    ),
    "windowed attention": (
        change(HIGH, window_size=[4, 4]),
        f"error: MODEL/{HIGH}: window_size is [4, 4]; it must be [-1, -1]",
    ),
    "longer text than there is": (
        change(HIGH, text_len=513),
        f"error: MODEL/{HIGH}: text_len is 513; it must be a whole number from 1 to 512",
    ),
    "experts of different text": (
        change("low_noise_model/config.json", text_len=63),
        "error: MODEL/low_noise_model/config.json: text_len is 63, and 64 in the high-noise expert",
    ),
    "a tensor of another model": (
        tensors(f"{VAE}.safetensors", decoder__extra=torch.ones(1)),
        f"error: MODEL/{VAE}.safetensors: holds decoder.extra, "
        "a tensor that a model of this configuration does not have",
    ),
    "a tensor too few": (
        tensors(f"{T5}.safetensors", norm__weight=None),
        f"error: MODEL/{T5}.safetensors: the weights hold no tensor named norm.weight",
    ),
    "a tensor of another shape": (
        tensors(f"{T5}.safetensors", norm__weight=torch.ones(31)),
        f"error: MODEL/{T5}.safetensors: norm.weight has shape [31]; its configuration asks for [32]",
    ),
    "a diffusers VAE under the original's name": (
        tensors(f"{VAE}.safetensors", encoder__conv1__weight=None),
        f"error: MODEL/{VAE}.safetensors: the weights hold no tensor named encoder.conv1.weight",
    ),
    "a VAE of other latents": (
        tensors(f"{VAE}.safetensors", decoder__conv1__weight=torch.ones(8, 48, 3, 3, 3)),
        f"error: MODEL/{VAE}.safetensors: VAEs of 48 latent channels are not built yet; "
        "today wanc compiles Wan 2.1's, which has 16",
    ),
    "a text encoder of flat weights": (
        tensors(f"{T5}.safetensors", token_embedding__weight=torch.ones(64)),
        f"error: MODEL/{T5}.safetensors: token_embedding.weight has shape [64]; 2 dimensions were expected",
    ),
    "heads that do not divide the text encoder": (
        tensors(f"{T5}.safetensors", blocks__0__pos_embedding__embedding__weight=torch.ones(32, 5)),
        f"error: MODEL/{T5}.safetensors: 32 attention channels do not divide into 5 heads",
    ),
    "a leftover block": (
        tensors(f"{T5}.safetensors", blocks__3__norm1__weight=torch.ones(32)),
        f"error: MODEL/{T5}.safetensors: holds blocks.3.norm1.weight, "
        "a tensor that a model of this configuration does not have",
    ),
    "channels that do not multiply": (
        tensors(f"{VAE}.safetensors", encoder__downsamples__0__residual__6__weight=torch.ones(9, 9, 3, 3, 3)),
        f"error: MODEL/{VAE}.safetensors: the encoder's channels are not multiples of 8, its first",
    ),
    "a resolution without blocks": (
        tensors(
            f"{VAE}.safetensors",
            encoder__downsamples__7__resample__1__weight=torch.ones(32, 32, 3, 3),
        ),
        f"error: MODEL/{VAE}.safetensors: a resolution of its encoder has no residual block",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(model: Path, name: str) -> None:
    damage, expected = REFUSALS[name]
    damage(model)
    assert refusal(model) == expected


def test_reading_needs_no_torch(two_experts: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from wanc.models.wan.checkpoint import open_checkpoint\n"
        "open_checkpoint(Path(sys.argv[1]))\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'onnx'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(two_experts)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
