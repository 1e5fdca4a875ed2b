"""What has to be known of a text-to-video model besides its graphs."""

from __future__ import annotations

from dataclasses import dataclass

from .video_limits import MOST_POSITIONS

TEXT_ENCODER, ENCODE = "text_encoder", "encode"
"""The component that encodes prompts, and its graph."""
DECODER = "vae_decoder"
"""The component that makes pictures of latents."""
HIGH, LOW = "denoiser_high", "denoiser_low"
"""The experts' components; a model with one expert has the first alone."""


@dataclass(frozen=True)
class Model:
    """A model's facts.

    `text_length` is in tokens; `boundary` is the fraction of the training timesteps from which upwards the high-noise
    expert works, None where there is one expert; latents are (encoded video - mean) / std, per channel; strides are
    pixels and frames of video per latent; of latent frames, and of tokens of a row or column, there are at most
    `positions`.
    """

    text_length: int
    boundary: float | None
    train_timesteps: int
    latent_mean: tuple[float, ...]
    latent_std: tuple[float, ...]
    spatial_stride: int
    temporal_stride: int
    positions: int = MOST_POSITIONS

    @property
    def most_frames(self) -> int:
        """Of a video."""
        return (self.positions - 1) * self.temporal_stride + 1

    def component_at(self, timestep: float) -> str:
        """The expert of a timestep: high-noise from `boundary` of the training timesteps upwards, that one included."""
        if self.boundary is None or timestep >= self.boundary * self.train_timesteps:
            return HIGH
        return LOW

    def latent_shape(self, *, height: int, width: int, frames: int) -> tuple[int, ...]:
        """[1, channels, latent frames, latent height, latent width] of a video of this size."""
        latent_frames = (frames - 1) // self.temporal_stride + 1
        stride = self.spatial_stride
        return 1, len(self.latent_mean), latent_frames, height // stride, width // stride
