"""Every tensor of each component by its canonical (diffusers) name, with its shape, as the configuration implies it.

What a checkpoint holds is compared with this, tensor by tensor, before anything else reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from wanc.models.wan.configuration import Config

Shapes = dict[str, tuple[int, ...]]
SHARED_EMBEDDING = "shared.weight"
TIED_EMBEDDING = "encoder.embed_tokens.weight"


def shapes(component: str, config: Config) -> Shapes:
    """Name → shape, in the order of a forward pass. `config` is the canonical configuration."""
    if component == "text_encoder":
        return dict(_text_encoder(config))
    if component == "vae_decoder":
        return dict(_vae(config))
    return dict(_denoiser(config))


Entries = Iterator[tuple[str, tuple[int, ...]]]


def _denoiser(config: Config) -> Entries:
    dim = config["num_attention_heads"] * config["attention_head_dim"]
    patch = tuple(config["patch_size"])
    yield "scale_shift_table", (1, 2, dim)
    yield from _layer("patch_embedding", dim, config["in_channels"], *patch)
    embedders = "condition_embedder"
    yield from _layer(f"{embedders}.time_embedder.linear_1", dim, config["freq_dim"])
    yield from _layer(f"{embedders}.time_embedder.linear_2", dim, dim)
    yield from _layer(f"{embedders}.time_proj", 6 * dim, dim)
    yield from _layer(f"{embedders}.text_embedder.linear_1", dim, config["text_dim"])
    yield from _layer(f"{embedders}.text_embedder.linear_2", dim, dim)
    for block in range(config["num_layers"]):
        yield from _denoiser_block(f"blocks.{block}", dim, config["ffn_dim"])
    yield from _layer("proj_out", config["out_channels"] * patch[0] * patch[1] * patch[2], dim)


def _denoiser_block(name: str, dim: int, ffn: int) -> Entries:
    yield f"{name}.scale_shift_table", (1, 6, dim)
    for attention in ("attn1", "attn2"):
        for projection in ("to_q", "to_k", "to_v", "to_out.0"):
            yield from _layer(f"{name}.{attention}.{projection}", dim, dim)
        # Over the full width, all heads together.
        yield f"{name}.{attention}.norm_q.weight", (dim,)
        yield f"{name}.{attention}.norm_k.weight", (dim,)
    yield from _layer(f"{name}.norm2", dim)
    yield from _layer(f"{name}.ffn.net.0.proj", ffn, dim)
    yield from _layer(f"{name}.ffn.net.2", dim, ffn)


def _text_encoder(config: Config) -> Entries:
    width, inner, ffn = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
    yield SHARED_EMBEDDING, (config["vocab_size"], width)
    for block in range(config["num_layers"]):
        attention, mlp = (f"encoder.block.{block}.layer.{index}" for index in (0, 1))
        for projection in "qkv":
            yield f"{attention}.SelfAttention.{projection}.weight", (inner, width)
        yield f"{attention}.SelfAttention.o.weight", (width, inner)
        biases = (config["relative_attention_num_buckets"], config["num_heads"])
        yield f"{attention}.SelfAttention.relative_attention_bias.weight", biases
        yield f"{attention}.layer_norm.weight", (width,)
        yield f"{mlp}.DenseReluDense.wi_0.weight", (ffn, width)
        yield f"{mlp}.DenseReluDense.wi_1.weight", (ffn, width)
        yield f"{mlp}.DenseReluDense.wo.weight", (width, ffn)
        yield f"{mlp}.layer_norm.weight", (width,)
    yield "encoder.final_layer_norm.weight", (width,)


def _vae(config: Config) -> Entries:
    latent = config["z_dim"]
    yield from _vae_encoder(config)
    yield from _layer("quant_conv", 2 * latent, 2 * latent, 1, 1, 1)
    yield from _layer("post_quant_conv", latent, latent, 1, 1, 1)
    yield from _vae_decoder(config)


def _vae_encoder(config: Config) -> Entries:
    widths = [config["base_dim"] * factor for factor in (1, *config["dim_mult"])]
    doublings: list[Any] = [*config["temperal_downsample"], None]
    yield from _layer("encoder.conv_in", widths[0], config["in_channels"], 3, 3, 3)
    index = 0
    for (width, out), temporal in zip(pairwise(widths), doublings, strict=True):
        for position in range(config["num_res_blocks"]):
            yield from _resnet(f"encoder.down_blocks.{index}", out if position else width, out)
            index += 1
        if temporal is not None:
            yield from _layer(f"encoder.down_blocks.{index}.resample.1", out, out, 3, 3)
            if temporal:
                yield from _layer(f"encoder.down_blocks.{index}.time_conv", out, out, 3, 1, 1)
            index += 1
    yield from _middle("encoder", widths[-1])
    yield from _head("encoder", 2 * config["z_dim"], widths[-1])


def _vae_decoder(config: Config) -> Entries:
    factors = config["dim_mult"][::-1]
    widths = [(config["decoder_base_dim"] or config["base_dim"]) * factor for factor in (factors[0], *factors)]
    doublings: list[Any] = [*config["temperal_downsample"][::-1], None]
    yield from _layer("decoder.conv_in", widths[0], config["z_dim"], 3, 3, 3)
    yield from _middle("decoder", widths[0])
    for level, ((width, out), temporal) in enumerate(zip(pairwise(widths), doublings, strict=True)):
        block = f"decoder.up_blocks.{level}"
        # Each upsampling before this level has halved the channels.
        first = width // 2 if level else width
        for position in range(config["num_res_blocks"] + 1):
            yield from _resnet(f"{block}.resnets.{position}", out if position else first, out)
        if temporal is not None:
            yield from _layer(f"{block}.upsamplers.0.resample.1", out // 2, out, 3, 3)
            if temporal:
                yield from _layer(f"{block}.upsamplers.0.time_conv", 2 * out, out, 3, 1, 1)
    yield from _head("decoder", config["out_channels"], widths[-1])


def _resnet(name: str, width: int, out: int) -> Entries:
    yield f"{name}.norm1.gamma", (width, 1, 1, 1)
    yield from _layer(f"{name}.conv1", out, width, 3, 3, 3)
    yield f"{name}.norm2.gamma", (out, 1, 1, 1)
    yield from _layer(f"{name}.conv2", out, out, 3, 3, 3)
    if width != out:
        yield from _layer(f"{name}.conv_shortcut", out, width, 1, 1, 1)


def _middle(half: str, width: int) -> Entries:
    yield from _resnet(f"{half}.mid_block.resnets.0", width, width)
    attention = f"{half}.mid_block.attentions.0"
    yield f"{attention}.norm.gamma", (width, 1, 1)
    yield from _layer(f"{attention}.to_qkv", 3 * width, width, 1, 1)
    yield from _layer(f"{attention}.proj", width, width, 1, 1)
    yield from _resnet(f"{half}.mid_block.resnets.1", width, width)


def _head(half: str, out: int, width: int) -> Entries:
    yield f"{half}.norm_out.gamma", (width, 1, 1, 1)
    yield from _layer(f"{half}.conv_out", out, width, 3, 3, 3)


def _layer(name: str, *weight: int) -> Entries:
    """A weight [out, …] and its bias [out]."""
    yield f"{name}.weight", weight
    yield f"{name}.bias", weight[:1]
