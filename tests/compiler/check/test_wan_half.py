"""What is allowed of engines that multiply in 16 bits, against what the libraries' own modules lose in bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import UMT5EncoderModel

from tests.conftest import ROOT
from wanc.compiler.check.compare import ENGINE

pytestmark = pytest.mark.slow

TINY = ROOT / "models" / "tiny-wan"


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def expert(folder: str, dtype: torch.dtype) -> torch.Tensor:
    module: Any = WanTransformer3DModel.from_pretrained(TINY / folder, torch_dtype=dtype)
    latents, text = random(1, 16, 3, 8, 10, seed=0).to(dtype), random(1, 64, 128, seed=1).to(dtype)
    return module(latents, torch.tensor([500.0]), text, return_dict=False)[0]


def encoder(dtype: torch.dtype) -> torch.Tensor:
    module = UMT5EncoderModel.from_pretrained(TINY / "text_encoder", dtype=dtype).eval()
    mask = torch.ones(1, 18, dtype=torch.int64)
    return module(inputs_embeds=random(1, 18, 128, seed=2).to(dtype), attention_mask=mask).last_hidden_state


def decoder(dtype: torch.dtype) -> torch.Tensor:
    module: Any = AutoencoderKLWan.from_pretrained(TINY / "vae", torch_dtype=dtype)
    return module.decode(random(1, 16, 3, 4, 6, seed=3).to(dtype)).sample


@torch.no_grad()
def test_it_is_a_few_times_what_the_modules_themselves_lose() -> None:
    computed = {
        "denoiser_high": lambda dtype: expert("transformer", dtype),
        "denoiser_low": lambda dtype: expert("transformer_2", dtype),
        "text_encoder": encoder,
        "vae_decoder": decoder,
    }
    lost: dict[str, float] = {}
    for name, compute in computed.items():
        exact, rounded = compute(torch.float32), compute(torch.bfloat16).float()
        lost[name] = float((rounded - exact).norm() / exact.norm())
    print({name: f"{error:.1e}" for name, error in lost.items()})
    assert 2 * max(lost.values()) <= ENGINE["half"] <= 5 * max(lost.values())
