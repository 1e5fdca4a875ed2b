"""What a build is held against: the libraries' modules, in both layouts, whatever our own tables of names say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from numpy.typing import NDArray
from transformers import UMT5EncoderModel

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc.errors import CheckpointError
from wanc.models.wan import original_keys
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint
from wanc.models.wan.streamed import stream
from wanc.models.wan.untouched import UntouchedComponent
from wanc.models.weights import Weight

Inputs = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two layouts of one model."""
    folder = tmp_path_factory.mktemp("layouts")
    for layout in ("diffusers", "original"):
        make(MODELS["tiny"], layout, folder / layout, seed=7)
    return folder


def noise(*shape: int, seed: int) -> NDArray[np.float32]:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape, dtype=np.float32)


def inputs(checkpoint: Checkpoint) -> dict[str, Inputs]:
    text = noise(1, checkpoint.text_length, checkpoint.components["denoiser_high"].config["text_dim"], seed=1)
    step = {"latents": noise(1, 16, 2, 6, 4, seed=2), "timestep": np.array([700.0], np.float32), "text": text}
    mask = np.array([[1] * 8 + [0] * 3], np.int64)
    width = checkpoint.components["text_encoder"].config["d_model"]
    return {
        "denoiser_high": step,
        "denoiser_low": step,
        "text_encoder": {"embeddings": noise(1, 11, width, seed=3), "mask": mask},
        "vae_decoder": {"latents": noise(1, 16, 2, 2, 3, seed=4)},
    }


@torch.no_grad()
def expected(folder: Path, component: str, given: Inputs) -> NDArray[Any]:
    """What the libraries themselves load and compute, from the diffusers layout."""
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    if component == "text_encoder":
        encoder = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
        states = encoder(inputs_embeds=tensors["embeddings"], attention_mask=tensors["mask"])
        return states.last_hidden_state.numpy()
    if component == "vae_decoder":
        vae: Any = AutoencoderKLWan.from_pretrained(folder / "vae", torch_dtype=torch.float32)
        return vae.decode(tensors["latents"]).sample.numpy()
    name = "transformer" if component == "denoiser_high" else "transformer_2"
    expert: Any = WanTransformer3DModel.from_pretrained(folder / name, torch_dtype=torch.float32)
    return expert(tensors["latents"], tensors["timestep"], tensors["text"], return_dict=False)[0].numpy()


def computed(checkpoint: Checkpoint, component: str, given: Inputs) -> NDArray[Any]:
    untouched = UntouchedComponent(checkpoint, component)
    if component == "vae_decoder":
        video = np.concatenate([chunk.frames for chunk in untouched.decode(given["latents"])], axis=2)
        return video.clip(-1, 1)  # as the library cuts it off at the end
    (output,) = untouched.run(given).values()
    return output


@pytest.mark.parametrize("component", ["text_encoder", "denoiser_low", "vae_decoder"])
def test_both_layouts_give_what_the_libraries_give(layouts: Path, component: str) -> None:
    for layout in ("diffusers", "original"):
        checkpoint = open_checkpoint(layouts / layout)
        given = inputs(checkpoint)[component]
        found = computed(checkpoint, component, given)
        reference = expected(layouts / "diffusers", component, given)
        assert found.dtype == np.float32 and reference.std() > 0.01
        np.testing.assert_allclose(found, reference, rtol=0, atol=1e-6 * float(np.abs(reference).max()))


def test_a_wrong_table_of_names_does_not_reach_it(layouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export would take values for keys; what it is compared with must not."""
    given = inputs(open_checkpoint(layouts / "original"))["denoiser_high"]
    right = computed(open_checkpoint(layouts / "original"), "denoiser_high", given)
    wrong = tuple(
        (ours, theirs.replace("attn2.to_k", "attn2.*").replace("attn2.to_v", "attn2.to_k").replace("*", "to_v"))
        for ours, theirs in original_keys.DENOISER_BLOCK
    )
    monkeypatch.setattr(original_keys, "DENOISER_BLOCK", wrong)
    checkpoint = open_checkpoint(layouts / "original")
    exchanged = [
        checkpoint.components["denoiser_high"].weights[f"blocks.0.attn2.{name}.bias"] for name in ["to_k", "to_v"]
    ]
    assert exchanged[0].offset != exchanged[1].offset
    found = computed(checkpoint, "denoiser_high", given)
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("component", ["text_encoder", "denoiser_high", "vae_decoder"])
def test_weights_are_in_memory_while_their_layer_is_executed(layouts: Path, component: str) -> None:
    checkpoint = open_checkpoint(layouts / "diffusers")
    untouched = UntouchedComponent(checkpoint, component)
    held: list[int] = []

    def note(*_: object) -> None:
        storages = {parameter.untyped_storage() for parameter in untouched.module.parameters()}
        held.append(sum(storage.nbytes() for storage in storages))

    for part in untouched.module.modules():
        part.register_forward_pre_hook(note)
    before = sum(parameter.untyped_storage().nbytes() for parameter in untouched.module.parameters())
    given = inputs(checkpoint)[component]
    if component == "vae_decoder":
        untouched.decode(given["latents"])
    else:
        untouched.run(given)
    shapes = [weight.shape for weight in checkpoint.components[component].weights.values()]
    largest = max(4 * int(np.prod(shape)) for shape in shapes)
    tables = sum(4 * int(np.prod(shape)) for shape in shapes if len(shape) <= 3)
    assert before == 4 * sum(1 for _ in untouched.module.parameters()), "one number stands for each"
    assert 0 < max(held) <= before + largest + tables, "a layer's weight, and what is small"


def test_what_the_decoder_keeps_makes_the_next_frames(layouts: Path) -> None:
    """Decoding is causal: a video of two latent frames begins with that of the first, and goes on from its caches."""
    checkpoint = open_checkpoint(layouts / "diffusers")
    untouched = UntouchedComponent(checkpoint, "vae_decoder")
    latents = noise(1, 16, 3, 2, 3, seed=4)
    chunks = untouched.decode(latents)
    assert [chunk.frames.shape[2] for chunk in chunks] == [1, 4, 4]
    (first,) = untouched.decode(latents[:, :, :1])
    np.testing.assert_allclose(first.frames, chunks[0].frames, rtol=0, atol=1e-5)
    doublings = sum(checkpoint.components["vae_decoder"].config["temperal_downsample"])
    assert sum(cache is None for cache in chunks[0].caches) == doublings
    assert not any(cache is None for cache in chunks[1].caches)
    assert len({len(chunk.caches) for chunk in chunks}) == 1


def test_a_change_reaches_every_weight(layouts: Path) -> None:
    checkpoint = open_checkpoint(layouts / "diffusers")
    changed: set[str] = set()

    def double(name: str, values: NDArray[Any]) -> NDArray[Any]:
        changed.add(name)
        return 2 * values if name == "encoder.final_layer_norm.weight" else values

    given = inputs(checkpoint)["text_encoder"]
    found = UntouchedComponent(checkpoint, "text_encoder", double).run(given)["hidden"]
    np.testing.assert_array_equal(found, 2 * computed(checkpoint, "text_encoder", given))
    assert changed == checkpoint.components["text_encoder"].weights.keys() - {"shared.weight"}


def test_a_parameter_without_a_weight_is_named(tmp_path: Path) -> None:
    with torch.device("meta"):
        linear = torch.nn.Linear(2, 2)
        module = torch.nn.Sequential(linear)
    (tmp_path / "w.bin").write_bytes(np.ones(4, np.float32).tobytes())
    weight = Weight("w.bin", 0, 16, "FLOAT", (2, 2))
    stream(module, {"0.weight": weight}, tmp_path, where="the model")
    with pytest.raises(CheckpointError, match=r"the weights hold no tensor named 0\.bias"):
        module(torch.ones(1, 2))
    assert torch.isnan(linear.weight).all(), "what was read is gone again"


def test_a_weight_of_another_shape_is_named(tmp_path: Path) -> None:
    with torch.device("meta"):
        module = torch.nn.Linear(2, 2, bias=False)
    stream(module, {"weight": Weight("w.bin", 0, 24, "FLOAT", (2, 3))}, tmp_path, where="the model")
    with pytest.raises(CheckpointError, match=r"weight has shape \[2, 3\]; its configuration asks for \[2, 2\]"):
        module(torch.ones(1, 2))


def test_a_configuration_that_the_library_refuses_is_told(layouts: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(layouts / "diffusers")
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text('{"_class_name": "WanTransformer3DModel", "num_layers": "x"}')
    with pytest.raises(CheckpointError, match="does not take the configuration of denoiser_high"):
        UntouchedComponent(replace(checkpoint, root=tmp_path), "denoiser_high")
