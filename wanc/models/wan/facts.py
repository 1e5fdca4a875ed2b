"""What of a checkpoint has to be known besides its graphs: to make a video, and to know which ones it can make."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wanc.models.wan.stored import Checkpoint
from wanc.runtime.model import Model
from wanc.runtime.solvers.schedule import TRAINING_TIMESTEPS
from wanc.runtime.video_limits import MOST_POSITIONS


@dataclass(frozen=True)
class WanFacts:
    """`model` is what a bundle says of it; a token is `patch` latents high and wide; `shift` is the scheduler's."""

    model: Model
    patch: tuple[int, int]
    shift: float | None


def facts_of(checkpoint: Checkpoint) -> WanFacts:
    """The facts of a checkpoint with a denoiser and a VAE. Two experts have positions for what both have."""
    vae = checkpoint.components["vae_decoder"].config
    experts = [entry.config for name, entry in checkpoint.components.items() if name.startswith("denoiser")]
    model = Model(
        text_length=checkpoint.text_length,
        boundary=checkpoint.boundary,
        train_timesteps=TRAINING_TIMESTEPS,
        latent_mean=tuple(vae["latents_mean"]),
        latent_std=tuple(vae["latents_std"]),
        spatial_stride=2 ** (len(vae["dim_mult"]) - 1),
        temporal_stride=2 ** sum(vae["temperal_downsample"]),
        positions=min(MOST_POSITIONS, *(config["rope_max_seq_len"] for config in experts)),
    )
    _, height, width = (math.lcm(*sizes) for sizes in zip(*(config["patch_size"] for config in experts), strict=True))
    return WanFacts(model, (height, width), checkpoint.shift)
