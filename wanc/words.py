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

DeviceKind = Literal["cpu", "a100-80g", "h100", "h200", "b200", "l40s", "rtx4090", "rtx5090"]
"""The kinds of devices that the planner knows; recipes may add others."""
LinkKind = Literal["pcie", "nvlink", "pcie-gen4", "pcie-gen5", "infiniband", "ethernet"]
"""What connects devices; pcie is that of the kind's own generation."""
NumberFormat = Literal["fp32", "fp16", "bf16", "fp8", "int8"]
"""In what is multiplied."""
