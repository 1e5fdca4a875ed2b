"""The causal denoiser: diffusers' own transformer on one chunk of a video, beside what finished chunks have left.

The tokens of a chunk see each other, and the keys and values of chunks that are finished. These are inputs, rotated by
their positions as Self-Forcing stores them (https://github.com/guandeh17/Self-Forcing, `wan/modules/causal_model.py`),
or as they are and rotated where they are read, by positions relative to the cache, as flashdreams and LongLive do; the
chunk's own are results, and whoever executes the graph decides what becomes of them. All frames of a chunk are equally
noisy, so that a timestep is one number, as for a whole video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import (
    WanAttention,
    WanAttnProcessor,
    WanRotaryPosEmbed,
    WanTransformer3DModel,
)

from wanc.models.graph import Graph, Input, Output
from wanc.models.wan.transformer import blocks
from wanc.runtime.kvcache import stored
from wanc.words import CacheFormat, CachePositions

__all__ = ["CausalStep", "blocks", "causal_step", "graphs"]
EXAMPLE_PAST = 40
"""Tokens of finished chunks in a trial run."""


@dataclass
class CausalChunk:
    """What the inside of a model is given of a chunk, and gives: set anew by each forward pass."""

    cos: torch.Tensor | None = None
    sin: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    past_turns: Sequence[torch.Tensor] = ()
    past_rotary: Sequence[torch.Tensor] = ()
    past: Sequence[torch.Tensor] = ()
    cache: CacheFormat = "fp32"
    positions: CachePositions = "absolute"
    new: list[torch.Tensor] = field(default_factory=list[torch.Tensor])


class CausalStep(WanTransformer3DModel):
    """One pass over a chunk of one guidance branch; made by `causal_step`."""

    chunk: CausalChunk

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        frame_cos: torch.Tensor,
        frame_sin: torch.Tensor,
        past_bias: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """The velocity, and the keys and values of each block in turn; `past` is in the same order, behind its cosines
        and sines where positions are relative.
        """
        chunk = self.chunk
        turns = 2 if chunk.positions == "relative" else 0
        chunk.cos, chunk.sin, chunk.bias = frame_cos, frame_sin, past_bias
        chunk.past_turns, chunk.past = past[:turns], past[turns:]
        chunk.new.clear()
        (velocity,) = super().forward(latents, cast(Any, timestep), text, return_dict=False)
        return cast(torch.Tensor, velocity), *chunk.new


class ChunkPositions(WanRotaryPosEmbed):
    """Rotations of a chunk's tokens: rows and columns count from 0, and the frames' own are given."""

    def __init__(self, chunk: CausalChunk, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.chunk = chunk

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Cosines and sines, each [1, tokens, 1, channels of a head]."""
        cos, sin = super().forward(hidden_states[:, :, :1])
        count = hidden_states.shape[2]  # of latents alone, so that nothing else is asked for its sizes
        assert self.chunk.cos is not None and self.chunk.sin is not None
        tables = zip((cos, sin), self.chunk.past_turns, strict=False)
        self.chunk.past_rotary = [self._of_the_past(of_one, turns) for of_one, turns in tables]
        return self._of_all_frames(cos, self.chunk.cos, count), self._of_all_frames(sin, self.chunk.sin, count)

    def _of_all_frames(self, of_one: torch.Tensor, frames: torch.Tensor, count: int) -> torch.Tensor:
        """[1, tokens of a frame, 1, channels] and [frames, pairs of channels], of so many frames."""
        size = of_one.shape[1]
        of_place = of_one[..., self.t_dim :].expand(count, -1, -1, -1)
        of_time = frames.repeat_interleave(2, dim=-1).view(count, 1, 1, self.t_dim).expand(count, size, 1, self.t_dim)
        return torch.cat([of_time, of_place], dim=-1).reshape(1, count * size, 1, -1)

    def _of_the_past(self, of_one: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The same of finished chunks, whose turns in time are given for each token, [past, pairs of channels]."""
        size = torch.full((1,), of_one.shape[1])  # the exporter takes no computed number as a divisor
        place = torch.arange(tokens.shape[0]) % size
        of_time = tokens.repeat_interleave(2, dim=-1)[None, :, None]
        return torch.cat([of_time, of_one[:, place, :, self.t_dim :]], dim=-1)


class CachedAttention(WanAttnProcessor):
    """Self-attention of one block over what is past and the chunk itself."""

    def __init__(self, chunk: CausalChunk, block: int) -> None:
        super().__init__()
        self.chunk, self.block = chunk, block

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        del encoder_hidden_states, attention_mask
        assert rotary_emb is not None and self.chunk.bias is not None
        heads = (attn.heads, -1)
        query = rotated(attn.norm_q(attn.to_q(hidden_states)).unflatten(2, heads), *rotary_emb)
        raw = attn.norm_k(attn.to_k(hidden_states)).unflatten(2, heads)
        key, value = rotated(raw, *rotary_emb), attn.to_v(hidden_states).unflatten(2, heads)
        past_key, past_value = self._past()
        if self.chunk.positions == "relative":
            past_key = rotated(past_key, *self.chunk.past_rotary)
        self.chunk.new += [raw if self.chunk.positions == "relative" else key, value]
        bias = torch.nn.functional.pad(self.chunk.bias, (0, key.shape[1]))
        seen = dispatch_attention_fn(
            query, torch.cat([past_key, key], dim=1), torch.cat([past_value, value], dim=1), attn_mask=bias
        )
        return attn.to_out[1](attn.to_out[0](seen.flatten(2, 3)))

    def _past(self) -> list[torch.Tensor]:
        """The block's own, made float32 here: where blocks are cut apart, it stays with the block."""
        each = 2 * len(stored(self.chunk.cache, 2))
        return decoded(self.chunk.past[each * self.block : each * (self.block + 1)], self.chunk.cache)


def rotated(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs of neighbouring channels, turned; states are [1, tokens, heads, channels]."""
    even, odd = states.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def decoded(past: Sequence[torch.Tensor], cache: CacheFormat) -> list[torch.Tensor]:
    """Keys and values of the past in float32, of what `KeyValueRing` has for each."""
    if cache in ("fp32", "fp16"):
        return [entry.float() for entry in past]
    pairs = zip(past[::2], past[1::2], strict=True)
    return [(entry.float() if cache == "int8" else halves(entry.float())) * scale for entry, scale in pairs]


def halves(codes: torch.Tensor) -> torch.Tensor:
    """Two numbers from -7 to 7 of each byte's value: the first half of the channels is in the lower four bits."""
    upper = torch.floor(codes / 16)
    return torch.cat([codes - 16 * upper, upper], dim=-1) - 8


def causal_step(
    config: Mapping[str, Any], cache: CacheFormat = "fp32", positions: CachePositions = "absolute"
) -> CausalStep:
    """An expert without its weights."""
    model = cast(CausalStep, CausalStep.from_config(dict(config)))
    model.chunk = chunk = CausalChunk(cache=cache, positions=positions)
    parts = cast(Any, model)
    parts.rope = ChunkPositions(chunk, *_rope_arguments(config))
    for index, block in enumerate(parts.blocks):
        block.attn1.processor = CachedAttention(chunk, index)
    return model.eval()


def graphs(
    config: Mapping[str, Any],
    text_length: int,
    cache: CacheFormat = "fp32",
    positions: CachePositions = "absolute",
) -> tuple[Graph, ...]:
    """The `step` graph of a causal expert.

    latents float32 [1, in_channels, frames, 2*rows, 2*columns] are of one chunk; timestep and text as of an expert that
    is not causal. frame_cos and frame_sin, float32 [frames, pairs], turn the channels of a head that stand for time: by
    the frame's position in the video, times 10000^(-2*pair/channels). past.<block>.key and .value, float32 [1, past,
    heads, channels], are what `new.<block>.…` gave for finished chunks, in any order; past_bias, float32 [1, 1, 1,
    past], is 0 where one is seen, and -inf where there is none (yet). In another format, `cache`, they are what
    `KeyValueRing` makes of that. Where `positions` are relative, keys are given and taken unrotated, and past_cos and
    past_sin, float32 [past, pairs], turn those of the past in time.
    """
    _, patch_height, patch_width = config["patch_size"]
    heads = config["num_attention_heads"]
    width = config["attention_head_dim"]
    spatial = ("frames", f"{patch_height}*rows", f"{patch_width}*columns")
    rope = WanRotaryPosEmbed(*_rope_arguments(config))
    turns = ("past_cos", "past_sin") if positions == "relative" else ()
    names = [f"{block}.{what}" for block in range(config["num_layers"]) for what in ("key", "value")]
    return (
        Graph(
            name="step",
            build=lambda: causal_step(config, cache, positions),
            inputs=(
                Input("latents", (1, config["in_channels"], *spatial), binding="step", per="request"),
                Input("timestep", (1,), binding="build", per="expert"),
                Input("text", (1, text_length, config["text_dim"]), binding="request", per="branch"),
                Input("frame_cos", ("frames", rope.t_dim // 2), binding="chunk", per="request"),
                Input("frame_sin", ("frames", rope.t_dim // 2), binding="chunk", per="request"),
                Input("past_bias", (1, 1, 1, "past"), binding="chunk", per="request"),
                *(Input(name, ("past", rope.t_dim // 2), binding="chunk", per="request") for name in turns),
                *(
                    Input(f"past.{name}{end}", (1, "past", heads, size), "chunk", "branch", dtype)
                    for name in names
                    for end, dtype, size in stored(cache, width)
                ),
            ),
            outputs=(
                Output("velocity", (1, config["out_channels"], *spatial)),
                *(Output(f"new.{name}", (1, "tokens", heads, width)) for name in names),
            ),
            example={"frames": 3, "rows": 4, "columns": 5, "past": EXAMPLE_PAST},
            constants={f"rope.{name}": buffer.numpy() for name, buffer in rope.named_buffers()},
            values={"timestep": 500.0},
            named={"tokens": "frames*rows*columns"},
        ),
    )


def _rope_arguments(config: Mapping[str, Any]) -> tuple[Any, ...]:
    return config["attention_head_dim"], tuple(config["patch_size"]), config["rope_max_seq_len"]
