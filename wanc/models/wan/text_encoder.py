"""The umT5 encoder from embeddings on: transformers' own module, with the relative-position buckets as a table.

The embedding rows are gathered by the runtime from a memory-mapped file (2.1 GB for umT5-xxl), so the graph takes
embeddings. The bucket of a distance is `floor` of a logarithm that falls on whole numbers at powers of two; whether
an engine's logarithm lands just above or just below one must not change the model, so the buckets are constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import UMT5Config, UMT5EncoderModel
from transformers.models.umt5.modeling_umt5 import UMT5Attention

from wanc.models.graph import Graph, Input, Output


class BucketTable(torch.nn.Module):
    """Relative position → bucket, by look-up. Distances past the table's ends share the bucket of its last entry."""

    buckets: torch.Tensor

    def __init__(self, attention: UMT5Attention) -> None:
        super().__init__()
        self.reach = attention.relative_attention_max_distance
        distances = torch.arange(-self.reach, self.reach + 1)
        self.register_buffer("buckets", attention._relative_position_bucket(distances), persistent=False)  # pyright: ignore[reportPrivateUsage]

    def forward(self, relative_position: torch.Tensor) -> torch.Tensor:
        return self.buckets[relative_position.clamp(-self.reach, self.reach) + self.reach]


class EncodeModule(UMT5EncoderModel):
    """(embeddings, mask) → hidden states."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__(config)
        table = BucketTable(_attention_layers(self)[0])
        self.bucket_table = table
        for attention in _attention_layers(self):
            # A plain attribute: registering it would give the one table a name per layer.
            object.__setattr__(attention, "_relative_position_bucket", table)

    def forward(self, embeddings: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state


def graphs(config: Mapping[str, Any]) -> tuple[Graph, ...]:
    """The `encode` graph.

    embeddings float32 [1, tokens, d_model], mask int64 [1, tokens] (1 = a real token) → hidden float32
    [1, tokens, d_model]. `config` is the text encoder's canonical configuration.
    """
    settings = UMT5Config(**config)
    # The other attention back ends of transformers trace into views that only some layouts allow.
    settings._attn_implementation = "eager"  # pyright: ignore[reportPrivateUsage]
    table = BucketTable(UMT5Attention(settings, has_relative_attention_bias=True, layer_idx=0))
    return (
        Graph(
            name="encode",
            build=lambda: EncodeModule(settings).eval(),
            inputs=(
                Input("embeddings", (1, "tokens", settings.d_model), binding="request", per="branch"),
                Input("mask", (1, "tokens"), binding="request", per="branch", dtype="int64"),
            ),
            outputs=(Output("hidden", (1, "tokens", settings.d_model)),),
            example={"tokens": 7},
            constants={"bucket_table.buckets": table.buckets.numpy()},
        ),
    )


def blocks(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths of the encoder's blocks, in the order of execution."""
    return tuple(f"encoder.block.{index}" for index in range(config["num_layers"]))


def _attention_layers(model: torch.nn.Module) -> list[UMT5Attention]:
    return [module for module in model.modules() if isinstance(module, UMT5Attention)]
