"""What a build is held against: the libraries' modules, in both layouts, whatever our own tables of names say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
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


@pytest.mark.parametrize("component", ["text_encoder", "denoiser_high", "denoiser_low", "vae_decoder"])
def test_both_layouts_give_what_the_libraries_give(layouts: Path, component: str) -> None:
    for layout in ("diffusers", "original"):
        checkpoint = open_checkpoint(layouts / layout)
        given = inputs(checkpoint)[component]
        (found,) = UntouchedComponent(checkpoint, component).run(given).values()
        reference = expected(layouts / "diffusers", component, given)
        assert found.dtype == np.float32 and reference.std() > 0.01
        np.testing.assert_allclose(found, reference, rtol=0, atol=1e-6 * float(np.abs(reference).max()))


def test_a_wrong_table_of_names_does_not_reach_it(layouts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export would take values for keys; what it is compared with must not."""
    given = inputs(open_checkpoint(layouts / "original"))["denoiser_high"]
    (right,) = UntouchedComponent(open_checkpoint(layouts / "original"), "denoiser_high").run(given).values()
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
    (found,) = UntouchedComponent(checkpoint, "denoiser_high").run(given).values()
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
    untouched.run(inputs(checkpoint)[component])
    shapes = [weight.shape for weight in checkpoint.components[component].weights.values()]
    largest = max(4 * int(np.prod(shape)) for shape in shapes)
    tables = sum(4 * int(np.prod(shape)) for shape in shapes if len(shape) <= 3)
    assert before == 4 * sum(1 for _ in untouched.module.parameters()), "one number stands for each"
    assert 0 < max(held) <= before + largest + tables, "a layer's weight, and what is small"


def test_a_parameter_without_a_weight_is_named(tmp_path: Path) -> None:
    with torch.device("meta"):
        module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    (tmp_path / "w.bin").write_bytes(np.ones(4, np.float32).tobytes())
    weight = Weight("w.bin", 0, 16, "FLOAT", (2, 2))
    stream(module, {"0.weight": weight}, tmp_path, where="the model")
    with pytest.raises(CheckpointError, match=r"the weights hold no tensor named 0\.bias"):
        module(torch.ones(1, 2))
    assert torch.isnan(module[0].weight).all(), "what was read is gone again"


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
