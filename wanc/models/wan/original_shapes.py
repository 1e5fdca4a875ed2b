"""What the original layout does not write down: the configurations of its VAE and text encoder, read off their tensors.

Only enough is read to guess a configuration; whoever calls compares every tensor with what that configuration implies.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from wanc.models.weights import Weight

# Of the latents of Wan 2.1's VAE, by channel, as the original code has them (wan/modules/vae2_1.py).
LATENTS_MEAN = (
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
    0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
)  # fmt: skip
LATENTS_STD = (
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
)  # fmt: skip
MAX_DISTANCE = 128


class UnknownModelError(Exception):
    """Tensors of which no configuration can be guessed, and why."""


def text_encoder_config(stored: Mapping[str, Weight]) -> dict[str, Any]:
    """transformers' keys for the tensors of a umT5 encoder. Raises UnknownModelError."""
    vocabulary, width = _shape(stored, "token_embedding.weight", 2)
    inner, _ = _shape(stored, "blocks.0.attn.q.weight", 2)
    ffn, _ = _shape(stored, "blocks.0.ffn.fc1.weight", 2)
    buckets, heads = _shape(stored, "blocks.0.pos_embedding.embedding.weight", 2)
    if not heads or inner % heads:
        raise UnknownModelError(f"{inner} attention channels do not divide into {heads} heads")
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": inner // heads,
        "d_ff": ffn,
        "num_layers": next(n for n in count(1) if f"blocks.{n}.attn.q.weight" not in stored),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": MAX_DISTANCE,
    }


def vae_config(stored: Mapping[str, Weight]) -> dict[str, Any]:
    """diffusers' keys for the tensors of a Wan 2.1 VAE. Raises UnknownModelError."""
    width, channels, *_ = _shape(stored, "encoder.conv1.weight", 5)
    _, latent, *_ = _shape(stored, "decoder.conv1.weight", 5)
    pixels, *_ = _shape(stored, "decoder.head.2.weight", 5)
    if latent != len(LATENTS_MEAN):
        raise UnknownModelError(
            f"VAEs of {latent} latent channels are not built yet; today wanc compiles Wan 2.1's, which has 16"
        )
    levels, temporal = _encoder_levels(stored)
    if not all(blocks for _, blocks in levels):
        raise UnknownModelError("a resolution of its encoder has no residual block")
    if not width or any(out % width for out, _ in levels):
        raise UnknownModelError(f"the encoder's channels are not multiples of {width}, its first")
    return {
        "base_dim": width,
        "z_dim": latent,
        "dim_mult": [out // width for out, _ in levels],
        "num_res_blocks": levels[0][1],
        "temperal_downsample": temporal,
        "latents_mean": list(LATENTS_MEAN),
        "latents_std": list(LATENTS_STD),
        "in_channels": channels,
        "out_channels": pixels,
    }


def _encoder_levels(stored: Mapping[str, Weight]) -> tuple[list[tuple[int, int]], list[bool]]:
    """(channels, residual blocks) of each resolution, and whether the step to the next one halves time as well."""
    levels = [(0, 0)]
    temporal: list[bool] = []
    for index in count():
        block = f"encoder.downsamples.{index}"
        if f"{block}.residual.6.weight" in stored:
            out, *_ = _shape(stored, f"{block}.residual.6.weight", 5)
            levels[-1] = (out, levels[-1][1] + 1)
        elif f"{block}.resample.1.weight" in stored:
            temporal.append(f"{block}.time_conv.weight" in stored)
            levels.append((0, 0))
        else:
            return levels, temporal
    raise AssertionError


def _shape(stored: Mapping[str, Weight], name: str, rank: int) -> tuple[int, ...]:
    if name not in stored:
        raise UnknownModelError(f"the weights hold no tensor named {name}")
    shape = stored[name].shape
    if len(shape) != rank:
        raise UnknownModelError(f"{name} has shape {list(shape)}; {rank} dimensions were expected")
    return shape
