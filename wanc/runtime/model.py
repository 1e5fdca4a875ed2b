"""What has to be known of a text-to-video model besides its graphs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """A model's facts.

    `text_length` is in tokens; `boundary` is the fraction of the training timesteps from which upwards the high-noise
    expert works, None where there is one expert; latents are (encoded video - mean) / std, per channel; strides are
    pixels and frames of video per latent.
    """

    text_length: int
    boundary: float | None
    train_timesteps: int
    latent_mean: tuple[float, ...]
    latent_std: tuple[float, ...]
    spatial_stride: int
    temporal_stride: int
