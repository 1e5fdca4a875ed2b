"""Words of a recipe that stages of the compiler know as well.

They lie apart from both, so that a stage depends on these words and not on the format of recipes.
"""

from __future__ import annotations

from collections.abc import Mapping
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

AttentionFormat = Literal["float", "fp8"]
"""In what the products of attentions are multiplied."""

DeviceKind = Literal["cpu", "a100-80g", "h100", "h200", "b200", "l40s", "rtx4090", "rtx5090"]
"""The kinds of devices that the planner knows; recipes may add others."""
LinkKind = Literal["pcie", "nvlink", "pcie-gen4", "pcie-gen5", "infiniband", "ethernet"]
"""What connects devices; pcie is that of the kind's own generation."""
Cut = Literal["none", "blocks"] | int
"""Into how many segments a component is cut that is not spread over devices; `blocks` are as many as it has blocks."""
NumberFormat = Literal["fp32", "fp16", "bf16", "fp8", "int8"]
"""In what is multiplied."""
Compute = Literal["fp32", "bf16", "fp16"]
"""The format of products, and of everything that is no island."""

Target = Literal["cpu", "cuda", "sm75", "sm80", "sm86", "sm89", "sm90", "sm100", "sm120", "sm121"]
"""What engines are compiled for: a processor, any of NVIDIA's GPUs, or those of one compute capability."""
TARGETS: tuple[Target, ...] = get_args(Target)
CPU: tuple[Target, ...] = ("cpu",)
CUDA: Target = "cuda"
GPU_TARGETS: tuple[Target, ...] = tuple(target for target in TARGETS if target not in (*CPU, CUDA))

EngineKind = Literal["onnxruntime", "openvino", "tensorrt-rtx", "tensorrt"]
"""The backends, by the names that recipes have for them."""
BUILT_FOR: Mapping[EngineKind, tuple[Target, ...]] = {
    "onnxruntime": (*CPU, CUDA),
    "openvino": CPU,
    # Hopper's and the B200's cards are enterprise TensorRT's alone.
    "tensorrt-rtx": tuple(target for target in GPU_TARGETS if target not in ("sm90", "sm100")),
    "tensorrt": tuple(target for target in GPU_TARGETS if target != "sm75"),
}
"""The targets of each."""
CAPABILITIES: Mapping[DeviceKind, Target] = {
    "cpu": "cpu", "a100-80g": "sm80", "h100": "sm90", "h200": "sm90", "b200": "sm100", "l40s": "sm89",
    "rtx4090": "sm89", "rtx5090": "sm120",
}  # fmt: skip
"""What an engine is compiled for that a kind of device executes."""

Family = Literal["wan", "wan-causal"]
"""Of a Wan checkpoint: it makes a whole video at once, or chunk by chunk, looking back alone."""
CacheFormat = Literal["fp32", "fp16", "int8", "int4"]
"""In what keys and values of finished chunks are kept."""
CachePositions = Literal["absolute", "relative"]
"""Where the frames stand that a causal model sees: in the video, or in the order of what is in sight."""

Against = Literal["reference", "baseline"]
"""What a report's gates are about."""
