"""Encodes random training clips once, so that the experts train on latents only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from numpy.typing import NDArray

from . import configuration
from .scenes import TRAINING, Scene, random_scene, render
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


def encode(vae: AutoencoderKLWan, clips: int, seed: int, file: Path) -> Latents:
    """Encode ``clips`` random clips; the means of the posteriors go to ``file`` every two minutes."""
    combinations = [index % len(TRAINING) for index in range(clips)]
    values = means(vae, clips, lambda index: render(scene(seed, index, combinations[index])), file)
    mean, std = values.mean(dim=(0, 2, 3, 4)), values.std(dim=(0, 2, 3, 4))
    normalised = (values - mean.view(1, -1, 1, 1, 1)) / std.view(1, -1, 1, 1, 1)
    assert tuple(normalised.shape[1:]) == configuration.LATENT_SHAPE
    return Latents(normalised, combinations, mean, std)


def scene(seed: int, index: int, combination: int) -> Scene:
    """What clip number ``index`` shows."""
    return random_scene(np.random.default_rng([seed, 1, index]), TRAINING[combination])


@torch.no_grad()
def means(
    vae: AutoencoderKLWan, clips: int, clip: Callable[[int], NDArray[np.uint8]], file: Path, batch: int = BATCH
) -> torch.Tensor:
    """The means of the posteriors of clips by their numbers, float32 [clips, 16, frames, height, width].

    A killed run goes on from ``file``, which is written every two minutes.
    """
    values: torch.Tensor = torch.load(file, weights_only=True) if file.exists() else torch.empty(0)
    begun = saved = time.monotonic()
    first = len(values)
    parts = [values] if first else []
    for start in range(first, clips, batch):
        pictures = [clip(index) for index in range(start, min(start + batch, clips))]
        parts.append(posterior(vae, to_tensor(np.stack(pictures))).mode())
        done = start + len(pictures)
        if done == clips or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
            parts = [torch.cat(parts)]
            _save(parts[0], file)
            saved = time.monotonic()
        if done == clips or start // batch % 20 == 0:
            left = (time.monotonic() - begun) / (done - first) * (clips - done) / 60
            print(f"latents: {done}/{clips}  {left:.1f} min left", flush=True)
    return torch.cat(parts)[:clips]


def _save(values: torch.Tensor, file: Path) -> None:
    """Replace the file atomically."""
    partial = file.with_suffix(".partial")
    torch.save(values, partial)
    os.replace(partial, file)
