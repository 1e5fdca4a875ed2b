"""Encodes random training clips once, so that the experts train on latents only."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from numpy.typing import NDArray

from . import configuration
from .scenes import TRAINING, random_scene, render
from .training import SECONDS_BETWEEN_CHECKPOINTS
from .vae_phase import encode as posterior
from .vae_phase import to_tensor

BATCH = 8


@dataclass
class Latents:
    """``values`` is float32 [clips, 16, 5, 8, 8], normalised per channel; ``combinations`` indexes ``TRAINING``.

    ``mean`` and ``std`` are float32 [16], of the values before the normalisation: what the pipeline undoes.
    """

    values: torch.Tensor
    combinations: list[int]
    mean: torch.Tensor
    std: torch.Tensor


@torch.no_grad()
def encode(vae: AutoencoderKLWan, clips: int, seed: int, file: Path) -> Latents:
    """Encode ``clips`` random clips; the means of the posteriors go to ``file`` every two minutes."""
    values: torch.Tensor = torch.load(file, weights_only=True) if file.exists() else torch.empty(0)
    combinations = [index % len(TRAINING) for index in range(clips)]
    begun = saved = time.monotonic()
    first = len(values)
    parts = [values] if first else []
    for start in range(first, clips, BATCH):
        batch = [_clip(seed, index, combinations[index]) for index in range(start, min(start + BATCH, clips))]
        parts.append(posterior(vae, to_tensor(np.stack(batch))).mode())
        done = start + len(batch)
        if done == clips or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            parts = [torch.cat(parts)]
            _save(parts[0], file)
            saved = time.monotonic()
        if done == clips or start // BATCH % 20 == 0:
            left = (time.monotonic() - begun) / (done - first) * (clips - done) / 60
            print(f"latents: {done}/{clips}  {left:.1f} min left", flush=True)
    values = torch.cat(parts)[:clips]
    mean, std = values.mean(dim=(0, 2, 3, 4)), values.std(dim=(0, 2, 3, 4))
    normalised = (values - mean.view(1, -1, 1, 1, 1)) / std.view(1, -1, 1, 1, 1)
    assert tuple(normalised.shape[1:]) == configuration.LATENT_SHAPE
    return Latents(normalised, combinations, mean, std)


def _clip(seed: int, index: int, combination: int) -> NDArray[np.uint8]:
    """Clip number ``index``: uint8 [17, 64, 64, 3]."""
    return render(random_scene(np.random.default_rng([seed, 1, index]), TRAINING[combination]))


def _save(values: torch.Tensor, file: Path) -> None:
    """Replace the file atomically."""
    partial = file.with_suffix(".partial")
    torch.save(values, partial)
    os.replace(partial, file)
