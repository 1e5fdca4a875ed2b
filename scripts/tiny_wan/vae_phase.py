"""Trains the video autoencoder, mostly on small crops: the network is convolutional and crops are ten times cheaper."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from numpy.typing import NDArray

from . import configuration, training
from .scenes import DIRECTIONS, FRAMES, HELD_OUT, SIZE, TRAINING, random_scene, render

KL_WEIGHT = 1e-4
SQUARED_WEIGHT = 2.0
WHOLE_CLIP_SHARE = 0.1  # of all steps, at the end
CROPS = ((8, 5, 32), (4, 9, 32), (2, 5, 64))  # batch, frames, size
CROP_CHANCES = (0.55, 0.3, 0.15)
INSPECT_EVERY = 400  # steps


def build() -> AutoencoderKLWan:
    """A new autoencoder whose convolutions are laid out as the CPU likes them."""
    vae = AutoencoderKLWan(**configuration.VAE)
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return vae


def to_tensor(clips: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 [batch, frames, height, width, 3] to float32 [batch, 3, frames, height, width] in [-1, 1]."""
    return torch.from_numpy(clips.astype(np.float32) / 127.5 - 1.0).permute(0, 4, 1, 2, 3)


def encode(vae: AutoencoderKLWan, pixels: torch.Tensor) -> DiagonalGaussianDistribution:
    """The posterior of float32 [batch, 3, frames, height, width]: latents [batch, 16, 1 + frames // 4, ...]."""
    result: Any = vae.encode(pixels)
    return result.latent_dist


def decode(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Float32 [batch, 3, frames, height, width], clamped to [-1, 1]."""
    result: Any = vae.decode(latents)
    return result.sample


def random_crop(random: np.random.Generator, frames: int, size: int) -> NDArray[np.uint8]:
    """A window of a random training clip, usually around the shape and its edge: uint8 [frames, size, size, 3]."""
    scene = random_scene(random, TRAINING[random.integers(len(TRAINING))])
    first = int(random.integers(FRAMES - frames + 1))
    corner = []
    for start, step in zip(scene.start, DIRECTIONS[scene.attributes.direction], strict=True):
        middle = start + step * scene.speed * (first + frames / 2)
        jitter = random.uniform(-1.5, 1.5) * scene.radius
        corner.append(int(np.clip(middle + jitter - size / 2, 0, SIZE - size)))
    return render(scene, first, frames, corner[0], corner[1], size)


def held_out_clips(count: int) -> NDArray[np.uint8]:
    """Whole clips of combinations that no training step sees: uint8 [count, 17, 64, 64, 3]."""
    random = np.random.default_rng(20_000)
    return np.stack([render(random_scene(random, HELD_OUT[index % len(HELD_OUT)])) for index in range(count)])


@torch.no_grad()
def psnr(vae: AutoencoderKLWan, clips: NDArray[np.uint8]) -> float:
    """Mean over the clips of the reconstruction's PSNR in dB, with pixel values in [0, 1]."""
    values = []
    for clip in clips:
        pixels = to_tensor(clip[None])
        error = (decode(vae, encode(vae, pixels).mode()) - pixels) / 2
        values.append(-10 * float(torch.log10(error.square().mean())))
    return float(np.mean(values))


def train(vae: AutoencoderKLWan, plan: training.Plan, inspection_clips: int) -> None:
    """Train in place, and look at the reconstruction of ``inspection_clips`` held-out clips now and then."""
    optimiser = torch.optim.AdamW(vae.parameters(), lr=plan.learning_rate, betas=(0.9, 0.95), weight_decay=1e-4)

    def step_function(step: int, random: np.random.Generator) -> float:
        if step >= plan.steps * (1 - WHOLE_CLIP_SHARE):
            batch, frames, size = 1, FRAMES, SIZE
        else:
            batch, frames, size = CROPS[random.choice(len(CROPS), p=CROP_CHANCES)]
        pixels = to_tensor(np.stack([random_crop(random, frames, size) for _ in range(batch)]))
        posterior = encode(vae, pixels)
        # The unclamped decoder would need a copy of the frame loop; clamping costs only the gradient of overshoots.
        error = decode(vae, posterior.sample()) - pixels
        loss = error.abs().mean() + SQUARED_WEIGHT * error.square().mean()
        (loss + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return float(loss.detach())

    clips = held_out_clips(inspection_clips)
    training.run(
        plan,
        {"model": vae, "optimiser": optimiser},
        optimiser,
        step_function,
        inspect=lambda _: f"held-out PSNR {psnr(vae, clips):.2f} dB",
        inspect_every=INSPECT_EVERY,
    )
