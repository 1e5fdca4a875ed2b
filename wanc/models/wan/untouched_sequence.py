"""diffusers' own transformer on a whole causal video so far, in one pass, with a mask by chunks: what reports go by.

Nothing is kept from pass to pass, and no key or value is ever stored: finished chunks go in clean, at timestep 0, the
last one as it is, and each sees what its window lets it see. So it knows nothing of rings, and costs as much as a model
without any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor, WanTransformer3DModel

from wanc.runtime.cache_facts import CLEAN
from wanc.runtime.kvcache import KeyValueWindow

Array = np.ndarray[Any, Any]


def run_behind(
    module: WanTransformer3DModel, inputs: Mapping[str, Array], clean: Sequence[Array], window: KeyValueWindow
) -> Array:
    """The velocity of a chunk behind `clean` ones, latents [1, channels, frames, height, width] each.

    `inputs` are an expert's that is not causal: latents, timestep [1], text.
    """
    chunks = [*clean, inputs["latents"]]
    _, height, width = cast(Any, module).config.patch_size
    tokens = torch.tensor([one.shape[2] * (one.shape[3] // height) * (one.shape[4] // width) for one in chunks])
    mask = visible(len(chunks), window).repeat_interleave(tokens, 0).repeat_interleave(tokens, 1)[None, None]
    for block in cast(Any, module.blocks):
        block.attn1.processor = MaskedAttention(mask)
    noisy = float(inputs["timestep"][0])
    timesteps = torch.tensor([CLEAN] * len(clean) + [noisy]).repeat_interleave(tokens)[None]
    latents, text = torch.from_numpy(np.concatenate(chunks, axis=2)), torch.from_numpy(inputs["text"].copy())
    (velocity,) = cast(Any, module)(latents, timesteps, text, return_dict=False)
    return velocity[:, :, -chunks[-1].shape[2] :].numpy()


def visible(chunks: int, window: KeyValueWindow) -> torch.Tensor:
    """Which chunk sees which, bool [chunks, chunks]: what a finished one computes sees what that one saw."""
    sees = torch.zeros(chunks, chunks, dtype=torch.bool)
    for chunk in range(chunks):
        sees[chunk, [*window.seen(chunk), chunk]] = True
    return sees


class MaskedAttention(WanAttnProcessor):
    """diffusers' own self-attention, which a block gives no mask, with one."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.mask = mask

    def __call__(self, attn: Any, hidden: Any, encoder: Any = None, mask: Any = None, rotary: Any = None) -> Any:
        del mask
        return super().__call__(attn, hidden, encoder, self.mask, rotary)
