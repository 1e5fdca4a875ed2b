"""The denoiser: diffusers' own transformer, traced at batch 1 with a scalar timestep.

A 1-D timestep keeps the modulation at [1, 6, d]; expanding it per token, as the original code does, would cost
gigabytes of fp32 per forward at real sizes. Guidance branches are separate executions, so the batch is always 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformer3DModel

from wanc.models.graph import Graph, Input, Output
from wanc.models.wan.streamed import read_tensor
from wanc.models.weights import Weight

ExpertModule = TypeVar("ExpertModule", bound="StepModule")


class StepModule(WanTransformer3DModel):
    """One denoising step of one guidance branch: (latents, timestep, text) → velocity."""

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (velocity,) = super().forward(latents, cast(Any, timestep), text, return_dict=False)
        return cast(torch.Tensor, velocity)


def graphs(config: Mapping[str, Any], text_length: int) -> tuple[Graph, ...]:
    """The `step` graph of an expert.

    latents float32 [1, in_channels, frames, 2*rows, 2*columns], timestep float32 [1] in 0..1000, text float32
    [1, text_length, text_dim] → velocity float32, shaped as the latents with out_channels. `config` is the
    expert's canonical configuration.
    """
    _, patch_height, patch_width = config["patch_size"]
    spatial = ("frames", f"{patch_height}*rows", f"{patch_width}*columns")
    rope = WanRotaryPosEmbed(config["attention_head_dim"], tuple(config["patch_size"]), config["rope_max_seq_len"])
    return (
        Graph(
            name="step",
            build=lambda: step_module(config),
            inputs=(
                Input("latents", (1, config["in_channels"], *spatial), binding="step", per="request"),
                Input("timestep", (1,), binding="build", per="expert"),
                Input("text", (1, text_length, config["text_dim"]), binding="request", per="branch"),
            ),
            outputs=(Output("velocity", (1, config["out_channels"], *spatial)),),
            example={"frames": 3, "rows": 4, "columns": 5},
            constants={f"rope.{name}": buffer.numpy() for name, buffer in rope.named_buffers()},
            values={"timestep": 500.0},
            named={"tokens": "frames*rows*columns"},
        ),
    )


def blocks(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths of an expert's blocks, in the order of execution."""
    return tuple(f"blocks.{index}" for index in range(config["num_layers"]))


def step_module(config: Mapping[str, Any]) -> StepModule:
    """An expert without its weights."""
    return cast(StepModule, StepModule.from_config(dict(config))).eval()


def load(module: ExpertModule, weights: Mapping[str, Weight], files: Mapping[str, Path]) -> ExpertModule:
    """An expert with its weights, float32, that does not learn; all of it is in memory.

    `weights` are by canonical name, and `files` locates what they name.
    """
    module.float()
    module.load_state_dict({name: read_tensor(weight, files[weight.file]) for name, weight in weights.items()})
    return module.requires_grad_(False)
