"""The arithmetic of the umT5 encoder in the original code's terms (wan/modules/t5.py), for one unpadded prompt."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn.functional import gelu, linear

Weights = Mapping[str, torch.Tensor]
MAX_DISTANCE = 128


def encode(weights: Weights, ids: torch.Tensor, layers: int) -> torch.Tensor:
    """ids [tokens] → hidden states [tokens, width], by the names of the original layout."""
    hidden = weights["token_embedding.weight"][ids]
    for layer in range(layers):
        block = {
            name.removeprefix(f"blocks.{layer}."): value
            for name, value in weights.items()
            if name.startswith(f"blocks.{layer}.")
        }
        hidden = hidden + _attention(block, _norm(hidden, block["norm1.weight"]))
        normed = _norm(hidden, block["norm2.weight"])
        gated = linear(normed, block["ffn.fc1.weight"]) * gelu(
            linear(normed, block["ffn.gate.0.weight"]), approximate="tanh"
        )
        hidden = hidden + linear(gated, block["ffn.fc2.weight"])
    return _norm(hidden, weights["norm.weight"])


def _attention(block: Weights, hidden: torch.Tensor) -> torch.Tensor:
    biases = block["pos_embedding.embedding.weight"]
    tokens, heads = hidden.shape[0], biases.shape[1]
    query, key, value = (linear(hidden, block[f"attn.{name}.weight"]).view(tokens, heads, -1) for name in "qkv")
    scores = torch.einsum("qhd,khd->hqk", query, key)  # T5 does not scale
    scores += biases[_buckets(tokens, biases.shape[0])].permute(2, 0, 1)
    mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).reshape(tokens, -1)
    return linear(mixed, block["attn.o.weight"])


def _buckets(tokens: int, buckets: int) -> torch.Tensor:
    """[query, key]: half of the buckets for keys after the query; near distances have their own, far ones share."""
    distance = torch.arange(tokens)[None, :] - torch.arange(tokens)[:, None]
    half, exact = buckets // 2, buckets // 4
    away = distance.abs()
    shared = (torch.log(away.float() / exact) / torch.log(torch.tensor(MAX_DISTANCE / exact)) * (half - exact)).long()
    far = (exact + shared).clamp(max=half - 1)
    return (distance > 0).long() * half + torch.where(away < exact, away, far)


def _norm(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return weight * hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + 1e-6)
