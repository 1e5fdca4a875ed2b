"""diffusers' own transformer on one chunk of a causal video: what a build of a causal expert is held against.

Its modules and its processors are executed as they are; only what they call for attention is given more keys to see,
those of the past, and the rotations are given the positions of the frames. Keys that are kept unrotated are noted
behind their norm, and turned as complex numbers where they are seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import torch
from diffusers.models.transformers import transformer_wan
from diffusers.models.transformers.transformer_wan import WanAttnProcessor, WanTransformer3DModel

from wanc.runtime.kvcache import BIAS, FORMATS, SCALE, decoded

Array = np.ndarray[Any, Any]
DISPATCH = "dispatch_attention_fn"
TURNS = ("past_cos", "past_sin")
"""Of a model whose positions are relative to what is in sight."""


def run_chunk(module: WanTransformer3DModel, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The velocity, and what every block leaves, float32, under the names of the causal `step` graph."""
    given = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    parts, past, left = cast(Any, module), _past(inputs, len(cast(Any, module.blocks))), dict[str, Array]()
    attend = cast(Any, transformer_wan).dispatch_attention_fn
    current: list[int] = []
    raw, place = dict[int, torch.Tensor](), list[torch.Tensor]()
    is_relative = TURNS[0] in given

    def looking_back(query: Any, key: Any, value: Any, **options: Any) -> Any:
        if not current:  # to the text
            return attend(query, key, value, **options)
        block = current.pop()
        kept = raw[block].unflatten(2, key.shape[2:]) if is_relative else key
        left[f"new.{block}.key"], left[f"new.{block}.value"] = kept.numpy().copy(), value.numpy().copy()
        past_key, past_value = past[block]
        if is_relative:
            past_key = _turned(past_key, [given[name] for name in TURNS], place)
        key, value = torch.cat([past_key, key], dim=1), torch.cat([past_value, value], dim=1)
        seen = torch.zeros(1, 1, 1, key.shape[1])
        seen[..., : given[BIAS].shape[-1]] = given[BIAS]
        return attend(query, key, value, **{**options, "attn_mask": seen})

    def of_frames(_module: object, _inputs: object, rotations: tuple[torch.Tensor, torch.Tensor]) -> Any:
        of_one = rotations[0].shape[1] // given["latents"].shape[2]
        place[:] = [rotation[0, :of_one, 0, parts.rope.t_dim :: 2] for rotation in rotations]
        return tuple(
            _in_time(rotation, given[f"frame_{name}"], parts.rope.t_dim)
            for name, rotation in zip(("cos", "sin"), rotations, strict=True)
        )

    watches = [parts.rope.register_forward_hook(of_frames)]
    for index, block in enumerate(parts.blocks):
        block.attn1.processor = _Announced(current, index)
        watches.append(block.attn1.norm_k.register_forward_hook(partial(_note, raw, index)))
    try:
        with patch.object(transformer_wan, DISPATCH, looking_back):
            (velocity,) = parts(given["latents"], given["timestep"], given["text"], return_dict=False)
    finally:
        for watch in watches:
            watch.remove()
    return {"velocity": velocity.numpy(), **left}


class _Announced(WanAttnProcessor):
    """diffusers' own processor, which says before that it is a block's self-attention."""

    def __init__(self, current: list[int], block: int) -> None:
        super().__init__()
        self._current, self._block = current, block

    def __call__(self, *arguments: Any, **options: Any) -> torch.Tensor:
        self._current.append(self._block)
        return super().__call__(*arguments, **options)


def _in_time(rotation: torch.Tensor, frames: torch.Tensor, channels: int) -> torch.Tensor:
    """Rotations [1, tokens, 1, channels], those in time taken from [frames, pairs]."""
    per_frame = rotation.unflatten(1, (frames.shape[0], -1)).clone()
    per_frame[..., 0:channels:2] = per_frame[..., 1:channels:2] = frames[None, :, None, None]
    return per_frame.flatten(1, 2)


def _note(raw: dict[int, torch.Tensor], block: int, _module: object, _inputs: object, keys: torch.Tensor) -> None:
    raw[block] = keys


def _turned(keys: torch.Tensor, turns: Sequence[torch.Tensor], place: Sequence[torch.Tensor]) -> torch.Tensor:
    """Keys of the past [1, past, heads, channels], by their turns in time [past, pairs] and in a frame [tokens of one,
    pairs]; `turns` and `place` are cosines and sines.
    """
    past, of_one = keys.shape[1], place[0].shape[0]
    frames = -(-past // of_one)
    cos, sin = (
        torch.cat([turn, of_place.repeat(frames, 1)[:past]], dim=1) for turn, of_place in zip(turns, place, strict=True)
    )
    pairs = torch.view_as_complex(keys.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * torch.complex(cos, sin)[None, :, None]).flatten(-2)


def _past(inputs: Mapping[str, Array], blocks: int) -> list[list[torch.Tensor]]:
    """Keys and values of each block, float32, of the format in which they are kept."""

    def of(name: str) -> torch.Tensor:
        codes = inputs[name]
        precision = next(key for key, dtype in FORMATS.items() if codes.dtype == dtype)
        parts = {end: inputs[name + end] for end in ("", SCALE) if name + end in inputs}
        return torch.from_numpy(decoded(parts, precision))

    return [[of(f"past.{block}.{what}") for what in ("key", "value")] for block in range(blocks)]
