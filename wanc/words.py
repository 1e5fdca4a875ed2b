"""Words of a recipe that stages of the compiler know as well.

They lie apart from both, so that a stage depends on these words and not on the format of recipes.
"""

from __future__ import annotations

from typing import Literal, get_args

Island = Literal["residual", "modulation", "norm", "rope", "time", "vae"]
"""What can stay in fp32 where products are not: operations of one kind, the time part, or the decoder of the VAE."""
ISLANDS: tuple[Island, ...] = get_args(Island)

FusedOperator = Literal["Attention", "RMSNormalization", "RotaryEmbedding"]
"""Canonical operators that ask an engine for one kernel each."""
FUSED_OPERATORS: tuple[FusedOperator, ...] = get_args(FusedOperator)

Observer = Literal["absmax", "percentile", "mse", "entropy"]
"""How the range of a quantised activation is chosen from what was seen of it."""
OBSERVERS: tuple[Observer, ...] = get_args(Observer)

Compute = Literal["fp32", "bf16", "fp16"]
"""The format of products, and of everything that is no island."""

Target = Literal["cpu", "sm75", "sm80", "sm86", "sm89", "sm120", "sm121"]
"""What engines are compiled for: a processor, or NVIDIA's GPUs of one compute capability."""
TARGETS: tuple[Target, ...] = get_args(Target)
GPU_TARGETS: tuple[Target, ...] = tuple(target for target in TARGETS if target != "cpu")
