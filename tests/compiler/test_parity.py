"""Exported and lowered graphs against the modules of diffusers and transformers in float32, at many sizes.

Every graph is traced at one size; the sizes here are others, so a size that the export baked in would fail.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from numpy.typing import NDArray
from transformers import UMT5EncoderModel

from tests.checkpoints import write_checkpoint
from wanc.compiler.export.wan import Traced
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint
from wanc.runtime.interface import carried
from wanc.runtime.session import Session

from .builder import Lowered, lower

Array = NDArray[np.float32]

# Two float32 implementations sum in different orders: 1e-7 to 1e-6 for these depths. A wrong epsilon, axis or cache is
# a thousand times larger.
TOLERANCE = 1e-5
TIMESTEPS = (0.5, 500.0, 999.0)


@pytest.fixture(scope="module", params=["fp32", "fp16", pytest.param("bf16", marks=pytest.mark.slow)])
def checkpoint(
    request: pytest.FixtureRequest, model: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    """The same sizes in float32 and float16, and other sizes in bfloat16."""
    if request.param == "fp32":
        return model
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "fp16":
        return open_checkpoint(
            write_checkpoint(
                folder,
                seed=2,
                dtype=torch.float16,
                vae_mult=(1, 2, 4, 4),
                vae_temporal=(False, True, True),
                text_heads=3,
            )
        )
    return open_checkpoint(
        write_checkpoint(
            folder,
            seed=3,
            dtype=torch.bfloat16,
            shards=3,
            head_dim=16,
            heads=3,
            ffn=56,
            layers=2,
            text_dim=24,
            text_layers=2,
            text_length=40,
            vae_dim=6,
            vae_res_blocks=2,
        )
    )


@pytest.fixture(scope="module")
def denoisers(checkpoint: Checkpoint, traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lowered]:
    """Both experts."""
    return {
        name: lower(name, checkpoint, traced, tmp_path_factory.mktemp(name))
        for name in ("denoiser_high", "denoiser_low")
    }


@pytest.fixture(scope="module")
def encoder(checkpoint: Checkpoint, traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    return lower("text_encoder", checkpoint, traced, tmp_path_factory.mktemp("text_encoder"))


@pytest.fixture(scope="module")
def decoder(checkpoint: Checkpoint, traced: Traced, tmp_path_factory: pytest.TempPathFactory) -> Lowered:
    return lower("vae_decoder", checkpoint, traced, tmp_path_factory.mktemp("vae_decoder"))


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(actual: NDArray[Any], expected: torch.Tensor) -> float:
    reference = expected.detach().numpy()
    assert actual.shape == reference.shape
    assert actual.dtype == reference.dtype == np.float32
    assert np.isfinite(reference).all() and np.linalg.norm(reference) > 0
    error = float(np.linalg.norm(actual - reference) / np.linalg.norm(reference))
    return error if np.isfinite(error) else float("inf")


@pytest.mark.parametrize("expert", ["denoiser_high", "denoiser_low"])
@torch.no_grad()
def test_a_step_equals_diffusers(checkpoint: Checkpoint, denoisers: dict[str, Lowered], expert: str) -> None:
    folder = checkpoint.root / checkpoint.components[expert].folder
    reference = WanTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    session = denoisers[expert].sessions["step"]
    text = random(1, checkpoint.text_length, reference.config["text_dim"], seed=0)
    text[:, 5:] = 0.0  # as the runtime pads
    sizes = [(1, 1, 1), (1, 3, 5), (3, 4, 5), (2, 7, 3), (5, 6, 9), (21, 1, 2)]  # frames, rows, columns of tokens
    for seed, (frames, rows, columns) in enumerate(sizes):
        latents = random(1, 16, frames, 2 * rows, 2 * columns, seed=seed)
        timestep = torch.tensor([TIMESTEPS[seed % len(TIMESTEPS)]])
        (expected,) = reference(latents, timestep, text, return_dict=False)
        feeds = {"latents": latents.numpy(), "timestep": timestep.numpy(), "text": text.numpy()}
        assert relative_error(session.run(feeds)["velocity"], expected) <= TOLERANCE, (frames, rows, columns)


def test_the_experts_have_weights_of_their_own(checkpoint: Checkpoint, denoisers: dict[str, Lowered]) -> None:
    config = checkpoint.components["denoiser_high"].config
    feeds = {
        "latents": random(1, 16, 1, 4, 6, seed=0).numpy(),
        "timestep": np.array([500.0], np.float32),
        "text": random(1, checkpoint.text_length, config["text_dim"], seed=1).numpy(),
    }
    high, low = (denoisers[name].sessions["step"].run(feeds)["velocity"] for name in ("denoiser_high", "denoiser_low"))
    assert np.abs(high - low).max() > 0.1


@torch.no_grad()
def test_the_encoder_equals_transformers(checkpoint: Checkpoint, encoder: Lowered) -> None:
    reference = UMT5EncoderModel.from_pretrained(checkpoint.root / "text_encoder", dtype=torch.float32).eval()
    distance = reference.config.relative_attention_max_distance
    # The last is past the end of the table of positions, and longer than a prompt can be.
    for tokens in (1, 2, 9, checkpoint.text_length, 3 * distance + 1):
        ids = torch.randint(0, 60, (1, tokens), generator=torch.Generator().manual_seed(tokens))
        for padding in {0, tokens // 3}:
            mask = torch.ones(1, tokens, dtype=torch.int64)
            mask[:, tokens - padding :] = 0
            expected = reference(ids, attention_mask=mask).last_hidden_state
            feeds = {"embeddings": reference.shared(ids).numpy(), "mask": mask.numpy()}
            hidden = encoder.sessions["encode"].run(feeds)["hidden"]
            assert relative_error(hidden, expected) <= TOLERANCE, (tokens, padding)


@torch.no_grad()
def test_padding_does_not_change_the_states_of_a_prompt(checkpoint: Checkpoint, encoder: Lowered) -> None:
    """Diffusers pads to the text length and cuts; the runtime never pads."""
    width = checkpoint.components["text_encoder"].config["d_model"]
    embeddings = random(1, 16, width, seed=0)
    mask = torch.ones(1, 16, dtype=torch.int64)
    mask[:, 7:] = 0
    session = encoder.sessions["encode"]
    padded = session.run({"embeddings": embeddings.numpy(), "mask": mask.numpy()})["hidden"]
    alone = session.run({"embeddings": embeddings[:, :7].numpy(), "mask": mask[:, :7].numpy()})["hidden"]
    assert relative_error(alone, torch.from_numpy(padded[:, :7])) <= TOLERANCE


def decode(decoder: Lowered, latents: torch.Tensor) -> Array:
    """The video, chunk by chunk, with the caches handed on as the graphs declare it."""
    chunks: list[Array] = []
    caches: dict[str, Array] = {}
    for index in range(latents.shape[2]):
        name = "steady" if index else "first"
        session: Session = decoder.sessions[name]
        outputs = session.run({"latent": latents[:, :, index : index + 1].contiguous().numpy(), **caches})
        chunks.append(outputs["frames"])
        caches = carried(decoder.lowered[name].outputs, outputs)
    return np.concatenate(chunks, axis=2).clip(-1, 1)  # as diffusers cuts it off at the end


@pytest.mark.slow
@torch.no_grad()
def test_decoding_by_chunks_equals_diffusers(checkpoint: Checkpoint, decoder: Lowered) -> None:
    reference = AutoencoderKLWan.from_pretrained(checkpoint.root / "vae", torch_dtype=torch.float32).eval()
    # Latent frames: 1 is `first` alone, 2 the chunk after it, 3 the first with caches of `steady`, 5 runs on.
    for seed, (frames, height, width) in enumerate([(1, 1, 1), (1, 5, 3), (2, 4, 6), (5, 3, 7), (3, 8, 9)]):
        # Half of unit scale, because random weights would drive more of the picture into the clamp.
        latents = 0.5 * random(1, 16, frames, height, width, seed=seed)
        expected = reference.decode(latents).sample
        assert (expected.abs() == 1.0).float().mean() < 0.1, "clamped values hide differences"
        assert relative_error(decode(decoder, latents), expected) <= TOLERANCE, (frames, height, width)
