"""The two naming schemes against each other, against diffusers' own converters, and the shapes against its modules."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers
from safetensors.torch import load_file
from transformers import UMT5Config, UMT5EncoderModel

from scripts.checkpoints.models import MODELS, Model
from scripts.make_checkpoint import make
from wanc.models.wan.checkpoint import Checkpoint, Component, open_checkpoint
from wanc.models.wan.original_keys import original_names
from wanc.models.wan.tensors import shapes

from .original_text_encoder import encode
from .random_models import random_model

SEEDS = range(12)
# As published, of one denoiser, the text encoder and the VAE.
PARAMETERS = {
    "wan2.1-t2v-1.3b": (1_418_996_800, 5_680_910_336, 126_892_531),
    "wan2.1-t2v-14b": (14_288_491_584, 5_680_910_336, 126_892_531),
    "wan2.2-t2v-a14b": (14_288_491_584, 5_680_910_336, 126_892_531),
}


def both_layouts(model: Model, folder: Path) -> tuple[Checkpoint, Checkpoint]:
    """One model in the diffusers and in the original layout, opened."""
    for layout in ("diffusers", "original"):
        make(model, layout, folder / layout, seed=1)
    return open_checkpoint(folder / "diffusers"), open_checkpoint(folder / "original")


def stored_bytes(checkpoint: Checkpoint, component: Component) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Canonical name → dtype, shape and bytes."""
    found: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for name, weight in component.weights.items():
        with (checkpoint.root / weight.file).open("rb") as stream:
            stream.seek(weight.offset)
            found[name] = (weight.dtype, weight.shape, stream.read(weight.length))
    return found


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder's safetensors files, by the names they have there."""
    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


def module(component: str, config: dict[str, Any]) -> torch.nn.Module:
    with torch.device("meta"):
        if component == "text_encoder":
            return UMT5EncoderModel(UMT5Config(**config))
        return (AutoencoderKLWan if component == "vae_decoder" else WanTransformer3DModel)(**config)


@pytest.mark.parametrize("model", [*MODELS.values(), *map(random_model, SEEDS)])
def test_names_and_shapes_are_those_of_diffusers_and_transformers(model: Model) -> None:
    for component, config in model.configs.items():
        expected = {name: tuple(value.shape) for name, value in module(component, config).state_dict().items()}
        expected.pop("encoder.embed_tokens.weight", None)  # the same tensor as shared.weight
        assert shapes(component, config) == expected


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_published_numbers_of_parameters(name: str) -> None:
    configs = MODELS[name].configs
    counts = [sum(map(math.prod, shapes(component, config).values())) for component, config in configs.items()]
    by_name = dict(zip(configs, counts, strict=True))
    assert (by_name["denoiser_high"], by_name["text_encoder"], by_name["vae_decoder"]) == PARAMETERS[name]


@pytest.mark.parametrize("seed", SEEDS)
def test_both_layouts_of_a_model_read_alike(tmp_path: Path, seed: int) -> None:
    diffusers, original = both_layouts(random_model(seed), tmp_path)
    assert diffusers.components.keys() == original.components.keys()
    assert (diffusers.boundary, diffusers.text_length) == (original.boundary, original.text_length)
    for name, component in diffusers.components.items():
        assert component.config == original.components[name].config
        assert list(component.weights) == list(original.components[name].weights)
        assert stored_bytes(diffusers, component) == stored_bytes(original, original.components[name])


@pytest.mark.parametrize("seed", SEEDS)
def test_no_two_tensors_have_one_original_name(seed: int) -> None:
    for component, config in random_model(seed).configs.items():
        expected = shapes(component, config)
        names = original_names(component, config, expected)
        assert names.keys() == expected.keys()
        assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("seed", SEEDS)
def test_diffusers_converts_the_experts_to_the_same_tensors(tmp_path: Path, seed: int) -> None:
    model = random_model(seed)
    both_layouts(model, tmp_path)
    folders = {"high_noise_model": "transformer", "low_noise_model": "transformer_2"}
    for ours, theirs in folders.items() if model.boundary else [(".", "transformer")]:
        pattern = "diffusion_pytorch_model*.safetensors"
        stored = {
            name: value
            for path in (tmp_path / "original" / ours).glob(pattern)
            for name, value in load_file(path).items()
        }
        assert_equal(convert_wan_transformer_to_diffusers(stored), loaded(tmp_path / "diffusers" / theirs))


@pytest.mark.parametrize("seed", SEEDS)
def test_diffusers_converts_the_vae_to_the_same_tensors(tmp_path: Path, seed: int) -> None:
    # Its converter knows the VAE's arrangement at two residual blocks and these multiples only.
    model = random_model(seed, resnets=2)
    model.vae["dim_mult"] = [1, 2, 4, 4]
    both_layouts(model, tmp_path)
    converted = convert_wan_vae_to_diffusers(load_file(tmp_path / "original" / "Wan2.1_VAE.safetensors"))
    assert_equal(converted, loaded(tmp_path / "diffusers" / "vae"))


@torch.no_grad()
@pytest.mark.parametrize("seed", SEEDS)
def test_the_text_encoder_computes_the_same_under_either_naming(tmp_path: Path, seed: int) -> None:
    """No converter of it is at hand: the original's arithmetic, written down anew, is what tells the names apart."""
    diffusers, original = both_layouts(random_model(seed), tmp_path)
    config = dict(original.components["text_encoder"].config)
    reference = UMT5EncoderModel.from_pretrained(diffusers.root / "text_encoder", dtype=torch.float32).eval()
    stored = load_file(original.root / "models_t5_umt5-xxl-enc-bf16.safetensors")
    ids = torch.randint(0, 160, (1, 300), generator=torch.Generator().manual_seed(seed))
    expected = reference(ids).last_hidden_state
    found = encode({name: value.float() for name, value in stored.items()}, ids[0], config["num_layers"])
    # Both in float32, through up to twelve layers.
    np.testing.assert_allclose(found.numpy(), expected[0].numpy(), rtol=0, atol=1e-4)


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
