"""What is measured: one denoising step of a Wan transformer with random weights, at one size."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wanc.errors import UserError

if TYPE_CHECKING:
    import torch

HEAD_SIZE = 128
CHANNELS = 16
TEXT_LENGTH, TEXT_WIDTH, FREQUENCIES = 512, 4096, 256
SEED, TIMESTEP = 0, 500.0
CALIBRATION_TIMESTEPS = (1000.0, 865.0, 730.0, 595.0, 460.0, 325.0, 190.0, 55.0)
"""A denoiser meets all of them, so whoever calibrates has to as well."""


@dataclass(frozen=True)
class Case:
    """A transformer's width and depth, the size of the latents, and the threads that everyone gets.

    `frames`, `height` and `width` are those of the latents; two by two points make a token.
    """

    width: int = 1536
    blocks: int = 4
    frames: int = 5
    height: int = 32
    columns: int = 56
    threads: int = 2

    @classmethod
    def parse(cls, text: str) -> Case:
        """From `width=1536,blocks=4,latent=5x32x56,threads=2`, all of it optional. Raises UserError."""
        values: dict[str, int] = {}
        for entry in filter(None, text.split(",")):
            key, _, value = entry.strip().partition("=")
            if key == "latent" and (found := re.fullmatch(r"(\d+)x(\d+)x(\d+)", value)):
                values |= dict(zip(("frames", "height", "columns"), map(int, found.groups()), strict=True))
            elif key in ("width", "blocks", "threads") and value.isdecimal() and int(value):
                values[key] = int(value)
            else:
                raise UserError(
                    f"the case {text!r} is not understood at {entry.strip()!r}",
                    hint="write it as width=1536,blocks=4,latent=5x32x56,threads=2",
                )
        case = cls(**values)
        if case.width % HEAD_SIZE or case.height % 2 or case.columns % 2:
            raise UserError(f"a case needs a width of whole heads of {HEAD_SIZE}, and an even latent height and width")
        return case

    @property
    def tokens(self) -> int:
        return self.frames * (self.height // 2) * (self.columns // 2)

    @property
    def feed_forward(self) -> int:
        """The width of the middle of a feed-forward network: that of the 1.3B model, in proportion."""
        return self.width * 8960 // 1536

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "tokens": self.tokens, "text_tokens": TEXT_LENGTH}

    def config(self) -> dict[str, Any]:
        """The transformer's configuration, as diffusers has it."""
        return {
            "patch_size": (1, 2, 2),
            "num_attention_heads": self.width // HEAD_SIZE,
            "attention_head_dim": HEAD_SIZE,
            "in_channels": CHANNELS,
            "out_channels": CHANNELS,
            "text_dim": TEXT_WIDTH,
            "freq_dim": FREQUENCIES,
            "ffn_dim": self.feed_forward,
            "num_layers": self.blocks,
            "cross_attn_norm": True,
            "qk_norm": "rms_norm_across_heads",
            "eps": 1e-6,
            "image_dim": None,
            "added_kv_proj_dim": None,
            "rope_max_seq_len": 1024,
            "pos_embed_seq_len": None,
        }

    def module(self) -> torch.nn.Module:
        """diffusers' transformer with the weights that its constructor draws from the seed, float32."""
        import torch
        from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            return WanTransformer3DModel(**self.config()).eval()

    def inputs(self, seed: int = SEED, timestep: float = TIMESTEP) -> dict[str, torch.Tensor]:
        """Latents and text from the seed, and the timestep; float32."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        shape = (1, CHANNELS, self.frames, self.height, self.columns)
        return {
            "latents": torch.randn(shape, generator=generator),
            "timestep": torch.tensor([timestep]),
            "text": torch.randn(1, TEXT_LENGTH, TEXT_WIDTH, generator=generator),
        }

    def calibration_inputs(self) -> list[dict[str, torch.Tensor]]:
        """The samples that every integer contender is calibrated on: none of them is what errors are measured on."""
        return [self.inputs(SEED + 1 + index, timestep) for index, timestep in enumerate(CALIBRATION_TIMESTEPS)]

    def save(self, module: torch.nn.Module, folder: Path) -> Mapping[str, Path]:
        """Write the weights as safetensors; the files by their names."""
        from safetensors.torch import save_file

        path = folder / "model.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)
        return {path.name: path}
