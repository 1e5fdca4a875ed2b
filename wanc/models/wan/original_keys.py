"""How the original code names what diffusers and transformers name otherwise.

Each pair is (original, canonical), for a module or a parameter; `{n}` is the number of a block. Nothing else differs:
what follows a module's name (`weight`, `bias`, `gamma`) is the same, and so is every value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wanc.models.wan.configuration import Config

Pair = tuple[str, str]

DENOISER: tuple[Pair, ...] = (
    ("head.modulation", "scale_shift_table"),
    ("head.head", "proj_out"),
    ("patch_embedding", "patch_embedding"),
    ("time_embedding.0", "condition_embedder.time_embedder.linear_1"),
    ("time_embedding.2", "condition_embedder.time_embedder.linear_2"),
    ("time_projection.1", "condition_embedder.time_proj"),
    ("text_embedding.0", "condition_embedder.text_embedder.linear_1"),
    ("text_embedding.2", "condition_embedder.text_embedder.linear_2"),
)
DENOISER_BLOCK: tuple[Pair, ...] = (
    ("blocks.{n}.modulation", "blocks.{n}.scale_shift_table"),
    *(
        (f"blocks.{{n}}.{original}.{ours}", f"blocks.{{n}}.{canonical}.{theirs}")
        for original, canonical in (("self_attn", "attn1"), ("cross_attn", "attn2"))
        for ours, theirs in (
            ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"), ("norm_q", "norm_q"), ("norm_k", "norm_k"),
        )
    ),
    # The norm before cross-attention, the only one with weights: third in the original, second in diffusers.
    ("blocks.{n}.norm3", "blocks.{n}.norm2"),
    ("blocks.{n}.ffn.0", "blocks.{n}.ffn.net.0.proj"),
    ("blocks.{n}.ffn.2", "blocks.{n}.ffn.net.2"),
)  # fmt: skip
TEXT_ENCODER: tuple[Pair, ...] = (
    ("token_embedding", "shared"),
    ("norm", "encoder.final_layer_norm"),
)
TEXT_ENCODER_BLOCK: tuple[Pair, ...] = (
    *((f"blocks.{{n}}.attn.{name}", f"encoder.block.{{n}}.layer.0.SelfAttention.{name}") for name in "qkvo"),
    ("blocks.{n}.pos_embedding.embedding", "encoder.block.{n}.layer.0.SelfAttention.relative_attention_bias"),
    ("blocks.{n}.norm1", "encoder.block.{n}.layer.0.layer_norm"),
    ("blocks.{n}.ffn.gate.0", "encoder.block.{n}.layer.1.DenseReluDense.wi_0"),
    ("blocks.{n}.ffn.fc1", "encoder.block.{n}.layer.1.DenseReluDense.wi_1"),
    ("blocks.{n}.ffn.fc2", "encoder.block.{n}.layer.1.DenseReluDense.wo"),
    ("blocks.{n}.norm2", "encoder.block.{n}.layer.1.layer_norm"),
)
VAE: tuple[Pair, ...] = (
    ("conv1", "quant_conv"),
    ("conv2", "post_quant_conv"),
    *(
        (f"{half}.{original}", f"{half}.{canonical}")
        for half in ("encoder", "decoder")
        for original, canonical in (
            ("conv1", "conv_in"), ("head.0", "norm_out"), ("head.2", "conv_out"),
            ("middle.1.norm", "mid_block.attentions.0.norm"),
            ("middle.1.to_qkv", "mid_block.attentions.0.to_qkv"),
            ("middle.1.proj", "mid_block.attentions.0.proj"),
        )
    ),
)  # fmt: skip
RESNET: tuple[Pair, ...] = (
    ("residual.0", "norm1"),
    ("residual.2", "conv1"),
    ("residual.3", "norm2"),
    ("residual.6", "conv2"),
    ("shortcut", "conv_shortcut"),
)
RESAMPLE: tuple[Pair, ...] = (("resample.1", "resample.1"), ("time_conv", "time_conv"))


def original_names(component: str, config: Config, canonical: Iterable[str]) -> dict[str, str]:
    """Canonical → original name of each of a component's tensors. `config` is the canonical configuration."""
    modules = {theirs: ours for ours, theirs in _pairs(component, config)}
    return {name: _translated(name, modules) for name in canonical}


def _translated(name: str, modules: dict[str, str]) -> str:
    if name in modules:
        return modules[name]
    module, _, parameter = name.rpartition(".")
    return f"{modules[module]}.{parameter}"


def _pairs(component: str, config: Config) -> Iterator[Pair]:
    if component == "vae_decoder":
        yield from VAE
        yield from _vae_blocks(config)
        return
    model, block = (TEXT_ENCODER, TEXT_ENCODER_BLOCK) if component == "text_encoder" else (DENOISER, DENOISER_BLOCK)
    yield from model
    for number in range(config["num_layers"]):
        yield from ((ours.format(n=number), theirs.format(n=number)) for ours, theirs in block)


def _vae_blocks(config: Config) -> Iterator[Pair]:
    """The original numbers all of the decoder's blocks in one list, as both do in the encoder."""
    for half in ("encoder", "decoder"):
        for ours, theirs in ((0, 0), (2, 1)):
            yield from _within(f"{half}.middle.{ours}", f"{half}.mid_block.resnets.{theirs}", RESNET)
    levels, resnets = len(config["dim_mult"]), config["num_res_blocks"]
    for index in range(levels * (resnets + 1) - 1):
        kind = RESAMPLE if (index + 1) % (resnets + 1) == 0 else RESNET
        yield from _within(f"encoder.downsamples.{index}", f"encoder.down_blocks.{index}", kind)
    for index in range(levels * (resnets + 2) - 1):
        level, position = divmod(index, resnets + 2)
        block = f"decoder.up_blocks.{level}"
        if position <= resnets:
            yield from _within(f"decoder.upsamples.{index}", f"{block}.resnets.{position}", RESNET)
        else:
            yield from _within(f"decoder.upsamples.{index}", f"{block}.upsamplers.0", RESAMPLE)


def _within(original: str, canonical: str, pairs: tuple[Pair, ...]) -> Iterator[Pair]:
    yield from ((f"{original}.{ours}", f"{canonical}.{theirs}") for ours, theirs in pairs)
