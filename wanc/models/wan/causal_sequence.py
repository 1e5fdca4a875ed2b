"""A causal denoiser that keeps nothing: finished chunks go in clean beside noisy ones, under a mask by chunks.

What is clean stands at timestep 0, and sees what is clean in its window; a noisy chunk sees the same, and itself. So
all chunks of a video are asked in one pass, each as it would be behind those before it, and gradients reach what the
clean ones compute as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

from wanc.models.wan.transformer import StepModule
from wanc.models.wan.untouched_sequence import MaskedAttention, visible
from wanc.runtime.cache_facts import CLEAN, CacheFacts


class CausalSequence(StepModule):
    """Many videos at a time; made by `causal_sequence`."""

    facts: CacheFacts

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """The velocity of all chunks, [batch, channels, frames, height, width], each at the timestep, [batch].

        `latents` have twice as many frames: all chunks clean, and behind them all chunks as they are.
        """
        lengths = self.facts.lengths(latents.shape[2] // 2)
        return self._velocity((latents, timestep, text), lengths, range(len(lengths)), range(len(lengths)))

    def behind(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """The velocity of the last chunk of these latents; those before it are clean."""
        lengths = self.facts.lengths(latents.shape[2])
        last = len(lengths) - 1
        return self._velocity((latents, timestep, text), lengths, range(last), (last,))

    def _velocity(
        self,
        inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        lengths: Sequence[int],
        clean: Sequence[int],
        noisy: Sequence[int],
    ) -> torch.Tensor:
        """Of the noisy chunks, by their numbers, which go in behind the clean ones."""
        (latents, timestep, text), parts = inputs, cast(Any, self)
        _, height, width = parts.config.patch_size
        chunks = torch.tensor([*clean, *noisy])
        is_clean = torch.arange(len(chunks)) < len(clean)
        tokens = torch.tensor(lengths)[chunks] * (latents.shape[3] // height) * (latents.shape[4] // width)
        past = visible(len(lengths), self.facts.window) & ~torch.eye(len(lengths), dtype=torch.bool)
        sees = past[chunks][:, chunks] & is_clean | torch.eye(len(chunks), dtype=torch.bool)
        mask = sees.repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)[None, None]
        for block in parts.blocks:
            block.attn1.processor = MaskedAttention(mask)
        frames = torch.arange(sum(lengths)).split([*lengths])
        parts.rope.frames = torch.cat([frames[chunk] for chunk in chunks])
        timesteps = torch.where(is_clean, CLEAN, timestep[:, None]).repeat_interleave(tokens, 1)
        velocity = super().forward(latents, timesteps, text)
        return velocity[:, :, -sum(lengths[chunk] for chunk in noisy) :]


class PlacedFrames(WanRotaryPosEmbed):
    """Rotations of frames that are where they are said to be in the video."""

    frames: torch.Tensor

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Cosines and sines, each [1, tokens, 1, channels of a head]."""
        count = int(self.frames.max()) + 1
        cos, sin = (turns.unflatten(1, (count, -1)) for turns in super().forward(hidden_states[:, :, :count]))
        return cos[:, self.frames].flatten(1, 2), sin[:, self.frames].flatten(1, 2)


def causal_sequence(config: Mapping[str, Any], facts: CacheFacts) -> CausalSequence:
    """An expert without its weights. Positions are those in the video, whatever the facts say."""
    model = cast(CausalSequence, CausalSequence.from_config(dict(config)))
    model.facts = facts
    size, patch, longest = config["attention_head_dim"], tuple(config["patch_size"]), config["rope_max_seq_len"]
    cast(Any, model).rope = PlacedFrames(size, patch, longest)
    return model.eval()
