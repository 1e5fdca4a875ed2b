"""The causal VAE decoder, one latent frame at a time, with its temporal caches as explicit inputs and outputs.

Two graphs are enough. `first` decodes the first latent frame to one video frame and skips the temporal doublings.
`steady` decodes any later latent frame to four. Every causal convolution keeps its last two input frames; a cache of
zeros is exactly the zero padding that the second chunk needs, so `first` pads its caches with zeros and hands the
doublings' own caches over as zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import CACHE_T, AutoencoderKLWan, WanCausalConv3d

from wanc.models.graph import Graph, Input, Output


class CachedDecoder(AutoencoderKLWan):
    """The decoder with its caches listed in the order in which a forward pass visits them."""

    def decode_frame(
        self, latent: torch.Tensor, caches: list[Any], *, first: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor | str]]:
        slots = [*caches, *[None] * (_convolutions(self) - len(caches))]
        frames = self.decoder(self.post_quant_conv(latent), feat_cache=slots, feat_idx=[0], first_chunk=first)
        # A 1×1×1 shortcut counts as a causal convolution and never touches its slot: those are left at the end.
        return frames, [slot for slot in slots if slot is not None]


class FirstModule(CachedDecoder):
    """(latent,) → (frames, caches…) for the first latent frame."""

    def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        frames, slots = self.decode_frame(latent, [], first=True)
        doublings = iter(_doubling_inputs(self, latent))
        caches = [next(doublings) if isinstance(slot, str) else slot for slot in slots]
        return frames, *[_pad_front(cache) for cache in caches]


class SteadyModule(CachedDecoder):
    """(latent, caches…) → (frames, caches…) for every later latent frame."""

    def forward(self, latent: torch.Tensor, *caches: torch.Tensor) -> tuple[torch.Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        frames, slots = self.decode_frame(latent, list(caches), first=False)
        return frames, *[slot for slot in slots if isinstance(slot, torch.Tensor)]


def graphs(config: Mapping[str, Any]) -> tuple[Graph, ...]:
    """The `first` and `steady` graphs.

    latent float32 [1, z_dim, 1, height, width] (already scaled by the latent statistics) → frames float32
    [1, out_channels, 1 or 4, 8*height, 8*width], of which -1..1 is seen: tiles are blended before what lies beyond is
    cut off. And one cache float32 [1, channels, 2, k*height, k*width] per
    causal convolution. `config` is the VAE's canonical configuration.
    """
    caches = _cache_shapes(config)
    latent = Input("latent", (1, config["z_dim"], 1, "height", "width"), binding="chunk", per="request")
    temporal = 2 ** sum(config["temperal_downsample"])
    spatial = 2 ** (len(config["dim_mult"]) - 1)
    channels = config["out_channels"]

    def outputs(frames: int) -> tuple[Output, ...]:
        picture = Output("frames", (1, channels, frames, f"{spatial}*height", f"{spatial}*width"))
        return picture, *[Output(f"next_{i}", shape, state=f"cache_{i}") for i, shape in enumerate(caches)]

    cache_inputs = [Input(f"cache_{i}", shape, binding="chunk", per="request") for i, shape in enumerate(caches)]
    example = {"height": 4, "width": 6}
    return (
        Graph("first", lambda: _module(FirstModule, config), (latent,), outputs(1), example),
        Graph("steady", lambda: _module(SteadyModule, config), (latent, *cache_inputs), outputs(temporal), example),
    )


def blocks(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths of the decoder's blocks, in the order of execution."""
    return "decoder.mid_block", *(f"decoder.up_blocks.{index}" for index in range(len(config["dim_mult"])))


def _module(kind: type[CachedDecoder], config: Mapping[str, Any]) -> CachedDecoder:
    return cast(CachedDecoder, kind.from_config(dict(config))).eval()


def _cache_shapes(config: Mapping[str, Any]) -> list[tuple[int | str, ...]]:
    """Shapes of the caches in visiting order, found by running `first` once without data."""
    height, width = 4, 6
    with torch.device("meta"), torch.no_grad():
        module = _module(FirstModule, config)
        _, *caches = module(torch.empty(1, config["z_dim"], 1, height, width))
    shapes: list[tuple[int | str, ...]] = []
    for cache in caches:
        factor = cache.shape[3] // height
        prefix = f"{factor}*" if factor > 1 else ""
        shapes.append((1, cache.shape[1], CACHE_T, f"{prefix}height", f"{prefix}width"))
    return shapes


def _doubling_inputs(module: CachedDecoder, latent: torch.Tensor) -> list[torch.Tensor]:
    """A zero frame for each temporal doubling, at the size of what reaches it in a forward pass."""
    zeros: list[torch.Tensor] = []
    scale = 1
    for block in cast(Any, module.decoder.up_blocks):
        for upsampler in block.upsamplers or ():
            if upsampler.mode == "upsample3d":
                size = (1, upsampler.dim, 1, latent.shape[3] * scale, latent.shape[4] * scale)
                zeros.append(latent.new_zeros(size))
            scale *= 2
    return zeros


def _pad_front(cache: torch.Tensor) -> torch.Tensor:
    """One frame → two, a zero frame before it. Shapes [1, channels, 1 or 2, h, w] → [1, channels, 2, h, w]."""
    missing = CACHE_T - cache.shape[2]
    return torch.nn.functional.pad(cache, (0, 0, 0, 0, missing, 0)) if missing else cache


def _convolutions(module: CachedDecoder) -> int:
    return sum(isinstance(layer, WanCausalConv3d) for layer in module.decoder.modules())
