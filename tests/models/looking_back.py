"""diffusers' own attention where each chunk of a sequence sees some, and counts positions from the first that it sees.

An independent reference for positions that are relative to a cache: nothing is kept, and keys are turned for each chunk
that looks at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor


class LookingBack(WanAttnProcessor):
    """`sees` has for each chunk those that it sees besides itself, in their order, and `lengths` their tokens."""

    def __init__(self, sees: Sequence[Sequence[int]], lengths: Sequence[int]) -> None:
        super().__init__()
        ends = [*accumulate(lengths)]
        self.sees = sees
        self.tokens = [torch.arange(end - length, end) for end, length in zip(ends, lengths, strict=True)]

    def __call__(self, attn: Any, hidden: Any, encoder: Any = None, mask: Any = None, rotary: Any = None) -> Any:
        del encoder, mask
        query, key = (
            norm(project(hidden)).unflatten(2, (attn.heads, -1))
            for norm, project in ((attn.norm_q, attn.to_q), (attn.norm_k, attn.to_k))
        )
        value = attn.to_v(hidden).unflatten(2, (attn.heads, -1))
        made = [self._made(query, key, value, rotary, row) for row in range(len(self.tokens))]
        return attn.to_out[1](attn.to_out[0](torch.cat(made, dim=1).flatten(2)))

    def _made(self, query: Any, key: Any, value: Any, rotary: Any, row: int) -> torch.Tensor:
        """What one chunk takes from all that it sees, of which the first token has the first position."""
        own = self.tokens[row]
        seen = torch.cat([*(self.tokens[chunk] for chunk in self.sees[row]), own])
        # One table for all: those of a sequence that begins with what is in sight.
        turns = torch.complex(*(table[:, : len(seen), :, ::2] for table in rotary))
        mine, theirs = turned(query[:, own], turns[:, -len(own) :]), turned(key[:, seen], turns)
        mine, theirs, values = (entry.transpose(1, 2) for entry in (mine, theirs, value[:, seen]))
        return torch.nn.functional.scaled_dot_product_attention(mine, theirs, values).transpose(1, 2)


def turned(states: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Neighbouring channels as complex numbers."""
    pairs = torch.view_as_complex(states.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns).flatten(-2)
