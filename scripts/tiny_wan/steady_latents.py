"""Latents from which tiny-wan's decoder makes the right colours late in a long clip too.

The autoencoder was trained on clips of 17 frames, in which the zeros in front of the first frame are never out of
sight. Behind them its encoder makes nearly the same of all colours, and its decoder purple of red. Yet there are
latents from which it makes red. A small network that sees the pixels is trained through the decoder to change what the
encoder made into those, and the causal denoiser learns to make them. The autoencoder stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from numpy.typing import NDArray
from torch import nn

from . import configuration, training
from .scenes import DIRECTIONS, SIZE, TRAINING, random_scene, render_round
from .vae_phase import decode, encode, to_tensor

SEEN = 5
"""Latent frames of the clips that the autoencoder was trained on: those stay as they are."""
STEADY = 9
"""From this latent frame on nothing changes any more."""
CHANNELS, WIDTH = configuration.LATENT_SHAPE[0], 256
COARSE, PATCH = 2, (4, 4, 4)
"""Rows and columns of pixels that are looked at as one; frames, rows and columns of such to a latent."""
FRAMES, CROP, BATCH = 37, 32, 4
SHAPE_WEIGHT = 4.0
"""How much more a pixel of the shape counts than one behind it."""
MINIMAL_CHROMA = 0.3
CHANGE_WEIGHT = 0.003


class SteadyLatents(nn.Module):
    """Changes normalised latents by the pixels that they are of, and by what is learned for each frame's place."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Conv2d(3 * PATCH[0] * PATCH[1] * PATCH[2], WIDTH, 3, padding=1)
        self.norm = nn.GroupNorm(1, WIDTH)
        self.place = nn.Parameter(torch.zeros(STEADY - SEEN + 1, WIDTH, 1, 1))
        self.between = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.outside = nn.Conv2d(WIDTH, CHANNELS, 1)
        nn.init.zeros_(self.outside.weight)
        nn.init.zeros_(self.outside.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, latents: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """[batch, 16, frames, height, width], of [batch, 3, 4 * frames - 3, 8 * height, 8 * width]."""
        coarse = nn.functional.avg_pool3d(pixels[:, :, 1 + PATCH[0] * (SEEN - 1) :], (1, COARSE, COARSE))
        seen = patches(coarse)
        places = torch.arange(seen.shape[1]).clamp(max=STEADY - SEEN).repeat(len(seen))
        hidden = nn.functional.silu(self.norm(self.inside(seen.flatten(0, 1))) + self.place[places])
        change = self.outside(nn.functional.silu(self.between(hidden))).unflatten(0, seen.shape[:2])
        return torch.cat([latents[:, :, :SEEN], latents[:, :, SEEN:] + change.transpose(1, 2)], dim=2)


def patches(pixels: torch.Tensor) -> torch.Tensor:
    """[batch, 3, 4 * frames, 4 * height, 4 * width] as [batch, frames, 192, height, width]."""
    for axis, size in zip((2, 4, 6), PATCH, strict=True):
        pixels = pixels.unflatten(axis, (-1, size))
    return pixels.permute(0, 2, 1, 3, 5, 7, 4, 6).flatten(2, 5)


def random_crop(random: np.random.Generator) -> NDArray[np.uint8]:
    """A window through which a shape passes again and again: uint8 [37, 32, 32, 3]."""
    scene = random_scene(random, TRAINING[random.integers(len(TRAINING))])
    moves = [
        int(random.integers(SIZE)) if step else int(SIZE / 2 - start + random.uniform(-1, 1) * scene.radius)
        for start, step in zip(scene.start, DIRECTIONS[scene.attributes.direction], strict=True)
    ]
    clip = np.roll(render_round(scene, FRAMES), moves[::-1], axis=(1, 2))
    first = (SIZE - CROP) // 2
    return clip[:, first : first + CROP, first : first + CROP]


def train(vae: AutoencoderKLWan, mean: torch.Tensor, std: torch.Tensor, plan: training.Plan) -> SteadyLatents:
    """Train through the decoder, whose weights stay; ``mean`` and ``std`` are those that latents are normalised by."""
    torch.manual_seed(plan.seed)
    vae.requires_grad_(False)
    model = SteadyLatents()
    threads = training.TwoThreads(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    # A decoder holds what it decodes, so that each thread has one.
    decoders = (vae, copy.deepcopy(vae))

    def loss(model: SteadyLatents, vae: AutoencoderKLWan, wanted: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            latents = (encode(vae, wanted).mode() - mean) / std
        changed = model(latents, wanted)
        error = (decode(vae, changed * std + mean) - wanted).abs()
        chroma = wanted.amax(dim=1, keepdim=True) - wanted.amin(dim=1, keepdim=True)
        seen = (error * (1 + SHAPE_WEIGHT * (chroma > MINIMAL_CHROMA))).mean()
        return seen + CHANGE_WEIGHT * (changed - latents).square().mean()

    def step_function(_step: int, random: np.random.Generator) -> float:
        wanted = to_tensor(np.stack([random_crop(random) for _ in range(BATCH)]))
        found = threads.backward(loss, *zip(decoders, wanted.chunk(2), strict=True))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return found

    training.run(plan, {"model": model, "optimiser": optimiser}, optimiser, step_function)
    return model


@torch.no_grad()
def steadied(model: SteadyLatents, latents: torch.Tensor, clip: Callable[[int], NDArray[np.uint8]]) -> torch.Tensor:
    """The normalised latents of clips by their numbers, changed."""
    return torch.cat([model(latents[index, None], to_tensor(clip(index)[None])) for index in range(len(latents))])
