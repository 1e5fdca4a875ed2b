"""Graphs exported from the diffusers and from the original layout of one model, against the libraries' own modules.

The libraries read the diffusers layout only. That both layouts hold the same tensors is shown, against diffusers' own
converters, in tests/models/test_original_keys.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5EncoderModel

from scripts.checkpoints.models import MODELS
from scripts.make_checkpoint import make
from wanc.compiler.export.wan import Traced
from wanc.models.wan.checkpoint import Checkpoint, open_checkpoint

from .builder import lower
from .test_parity import TOLERANCE, decode, random, relative_error

pytestmark = pytest.mark.slow  # graphs of their own to trace, of which `test_parity.py` has the same kind

EXPERTS = {"denoiser_high": "transformer", "denoiser_low": "transformer_2"}


@pytest.fixture(scope="module", params=[0.875, None], ids=["two experts", "one expert"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two layouts of one model."""
    folder = tmp_path_factory.mktemp("layouts")
    tiny = replace(MODELS["tiny"], boundary=request.param)
    for layout in ("diffusers", "original"):
        make(tiny, layout, folder / layout, seed=7)
    return folder


@pytest.fixture(scope="module", params=["diffusers", "original"])
def checkpoint(request: pytest.FixtureRequest, model: Path) -> Checkpoint:
    return open_checkpoint(model / request.param)


@torch.no_grad()
def test_a_step_equals_diffusers(checkpoint: Checkpoint, model: Path, traced: Traced, tmp_path: Path) -> None:
    experts = [name for name in EXPERTS if name in checkpoint.components]
    assert len(experts) == (2 if checkpoint.boundary else 1)
    for seed, name in enumerate(experts):
        folder = model / "diffusers" / EXPERTS[name]
        reference = WanTransformer3DModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
        (tmp_path / name).mkdir()
        session = lower(name, checkpoint, traced, tmp_path / name).sessions["step"]
        latents, timestep = random(1, 16, 3, 8, 6, seed=seed), torch.tensor([700.0])
        text = random(1, checkpoint.text_length, reference.config["text_dim"], seed=seed)
        (expected,) = reference(latents, timestep, text, return_dict=False)
        assert expected.std() > 0.01, "a model that does nothing proves nothing"
        feeds = {"latents": latents.numpy(), "timestep": timestep.numpy(), "text": text.numpy()}
        assert relative_error(session.run(feeds)["velocity"], expected) <= TOLERANCE


@torch.no_grad()
def test_the_encoder_equals_transformers(checkpoint: Checkpoint, model: Path, traced: Traced, tmp_path: Path) -> None:
    reference = UMT5EncoderModel.from_pretrained(model / "diffusers" / "text_encoder", dtype=torch.float32).eval()
    session = lower("text_encoder", checkpoint, traced, tmp_path).sessions["encode"]
    ids = torch.randint(0, 160, (1, 33), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(1, 33, dtype=torch.int64)
    expected = reference(ids, attention_mask=mask).last_hidden_state
    feeds = {"embeddings": reference.shared(ids).numpy(), "mask": mask.numpy()}
    assert relative_error(session.run(feeds)["hidden"], expected) <= TOLERANCE


@torch.no_grad()
def test_decoding_equals_diffusers(checkpoint: Checkpoint, model: Path, traced: Traced, tmp_path: Path) -> None:
    reference = AutoencoderKLWan.from_pretrained(model / "diffusers" / "vae", torch_dtype=torch.float32).eval()
    decoder = lower("vae_decoder", checkpoint, traced, tmp_path)
    latents = 0.5 * random(1, 16, 3, 3, 4, seed=1)
    expected = reference.decode(latents).sample
    assert (expected.abs() == 1.0).float().mean() < 0.1, "clamped values hide differences"
    assert relative_error(decode(decoder, latents), expected) <= TOLERANCE
