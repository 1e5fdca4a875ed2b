"""Every number that defines the tiny model: what is saved, and what the training and the sampling must agree on."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

# Sampling: the training draws noise levels with the same shift, so that it works where the sampler works.
FLOW_SHIFT = 4.0
BOUNDARY_RATIO = 0.875
TRAIN_TIMESTEPS = 1000
STEPS = 20
GUIDANCE_SCALE = 3.0  # more helps shapes of combinations that were never trained, and turns purple into yellow
NEGATIVE_PROMPT = ""
MAX_TEXT_TOKENS = 64

LATENT_SHAPE = (16, 5, 8, 8)  # channels, frames, height, width of a 17x64x64 clip

# tiny-wan-causal: chunks of one latent frame, each behind so many finished ones at most.
CAUSAL_WINDOW = 6
CAUSAL_FRAMES = 65  # of a training clip

TEXT_WIDTH = 128

VAE: Config = {
    "base_dim": 16,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}

EXPERT: Config = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 5,
    "attention_head_dim": 32,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": TEXT_WIDTH,
    "freq_dim": 128,
    "ffn_dim": 480,
    "num_layers": 5,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "rope_max_seq_len": 1024,
}

TEXT_ENCODER: Config = {
    "d_model": TEXT_WIDTH,
    "d_kv": 32,
    "d_ff": 256,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.0,
    "feed_forward_proj": "gated-gelu",
    "pad_token_id": 0,
    "eos_token_id": 1,
    "is_encoder_decoder": False,
    "use_cache": False,
}

SCHEDULER: Config = {
    "num_train_timesteps": TRAIN_TIMESTEPS,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": FLOW_SHIFT,
    "solver_order": 2,
    "solver_type": "bh2",
    "final_sigmas_type": "zero",
}
