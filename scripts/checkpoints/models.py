"""The models that a checkpoint can be made of: their sizes, under the canonical (diffusers) keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from wanc.models.wan.configuration import checked
from wanc.models.wan.original_shapes import LATENTS_MEAN, LATENTS_STD

Config = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A model's sizes. `shift` is what its schedule was made for; `boundary` is null where there is one expert."""

    denoiser: Config
    text_encoder: Config
    vae: Config
    text_length: int
    shift: float
    boundary: float | None
    shard_bytes: int

    @property
    def configs(self) -> dict[str, Config]:
        """The checked configuration of every component."""
        given = {"text_encoder": self.text_encoder, "denoiser_high": self.denoiser, "vae_decoder": self.vae}
        if self.boundary is not None:
            given["denoiser_low"] = self.denoiser
        return {name: checked(name, config, f"the {name} of make_checkpoint") for name, config in given.items()}

    def with_layers(self, layers: int) -> Model:
        """The same, with so many layers in the denoisers and in the text encoder."""
        return replace(
            self,
            denoiser={**self.denoiser, "num_layers": layers},
            text_encoder={**self.text_encoder, "num_layers": layers},
        )


def _denoiser(heads: int, ffn: int, layers: int, **others: Any) -> Config:
    return {
        "patch_size": [1, 2, 2],
        "num_attention_heads": heads,
        "attention_head_dim": 128,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 4096,
        "freq_dim": 256,
        "ffn_dim": ffn,
        "num_layers": layers,
        "rope_max_seq_len": 1024,
        **others,
    }


def _vae(width: int, resnets: int) -> Config:
    return {
        "base_dim": width,
        "z_dim": len(LATENTS_MEAN),
        "dim_mult": [1, 2, 4, 4],
        "num_res_blocks": resnets,
        "temperal_downsample": [False, True, True],
        "latents_mean": list(LATENTS_MEAN),
        "latents_std": list(LATENTS_STD),
    }


UMT5_XXL: Config = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_heads": 64,
    "num_layers": 24,
}
SHARD_BYTES = 5 * 10**9

# The denoiser of the 1.3B model with 4 of its 30 blocks, between a text encoder and a VAE that take no time.
SHAPE_OF_1_3B = Model(
    denoiser=_denoiser(heads=12, ffn=8960, layers=4),
    text_encoder={"vocab_size": 163, "d_model": 4096, "d_kv": 64, "d_ff": 1024, "num_heads": 8, "num_layers": 1},
    vae=_vae(16, 1),
    text_length=512,
    shift=5.0,
    boundary=None,
    shard_bytes=SHARD_BYTES,
)
A14B = Model(
    denoiser=_denoiser(heads=40, ffn=13824, layers=40),
    text_encoder=UMT5_XXL,
    vae=_vae(96, 2),
    text_length=512,
    shift=12.0,
    boundary=0.875,
    shard_bytes=SHARD_BYTES,
)
MODELS: Mapping[str, Model] = {
    "tiny": Model(
        denoiser=_denoiser(heads=2, ffn=64, layers=2, attention_head_dim=16, text_dim=32, freq_dim=32),
        # As many pieces as the tokenizer of models/tiny-wan has.
        text_encoder={"vocab_size": 163, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "num_layers": 2},
        vae=_vae(8, 1),
        text_length=64,
        shift=4.0,
        boundary=0.875,
        shard_bytes=40_000,
    ),
    "wan2.1-1.3b-shape": SHAPE_OF_1_3B,
    # The same whole, as both experts of a model that has two.
    "two-experts-1.3b-shape": replace(SHAPE_OF_1_3B, denoiser=_denoiser(heads=12, ffn=8960, layers=30), boundary=0.875),
    "wan2.1-t2v-1.3b": replace(A14B, denoiser=_denoiser(heads=12, ffn=8960, layers=30), shift=5.0, boundary=None),
    "wan2.1-t2v-14b": replace(A14B, shift=5.0, boundary=None),
    "wan2.2-t2v-a14b": A14B,
}
