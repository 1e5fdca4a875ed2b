"""Random sizes of Wan's shape, small enough to be made by the dozen."""

from __future__ import annotations

import random
from typing import Any

from scripts.checkpoints.models import MODELS, Model
from wanc.models.wan.original_shapes import LATENTS_MEAN, LATENTS_STD


def random_model(seed: int, *, resnets: int | None = None, levels: int = 4) -> Model:
    """A model whose sizes all differ from each other as far as they can, so that a swapped axis shows."""
    choose = random.Random(seed)
    text_dim = choose.choice([12, 20, 28])
    return Model(
        denoiser={
            **MODELS["tiny"].denoiser,
            "num_attention_heads": choose.randint(1, 3),
            "attention_head_dim": choose.choice([6, 12, 16]),
            "ffn_dim": choose.randint(17, 40),
            "num_layers": choose.randint(1, 12),
            "text_dim": text_dim,
            "freq_dim": choose.choice([10, 14, 18]),
        },
        text_encoder={
            "vocab_size": choose.randint(163, 200),
            "d_model": text_dim,
            "d_kv": choose.randint(3, 9),
            "d_ff": choose.randint(21, 40),
            "num_heads": choose.randint(1, 4),
            "num_layers": choose.randint(1, 12),
            "relative_attention_num_buckets": choose.choice([8, 16, 32]),
        },
        vae=_vae(choose, choose.randint(1, 3) if resnets is None else resnets, levels),
        text_length=choose.randint(8, 512),
        shift=5.0,
        boundary=choose.choice([None, 0.875]),
        shard_bytes=choose.choice([3_000, 20_000, 10**9]),
    )


def _vae(choose: random.Random, resnets: int, levels: int) -> dict[str, Any]:
    return {
        "base_dim": choose.choice([2, 4]),
        "z_dim": 16,
        "dim_mult": [1, *(choose.randint(1, 3) for _ in range(levels - 1))],
        "num_res_blocks": resnets,
        "temperal_downsample": [choose.random() < 0.5 for _ in range(levels - 1)],
        "latents_mean": list(LATENTS_MEAN),
        "latents_std": list(LATENTS_STD),
    }
