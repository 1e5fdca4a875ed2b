"""Small random Wan checkpoints in the diffusers layout, saved by diffusers' and transformers' own classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

VOCABULARY = 96
SENTENCES = ["A red circle moves to the left.", "the quick brown fox jumps over the lazy dog", "红色的圆向左移动。"]
# The real repositories shard these, and store the VAE in one file.
SHARDED = ("text_encoder", "transformer", "transformer_2")


@dataclass(frozen=True)
class Sizes:
    """The sizes of a checkpoint; the defaults are about as small as the architectures allow."""

    head_dim: int = 12
    heads: int = 2
    ffn: int = 32
    layers: int = 1
    text_dim: int = 16
    text_heads: int = 2
    text_head_dim: int = 8
    text_ffn: int = 24
    text_layers: int = 1
    text_buckets: int = 16
    text_distance: int = 20
    text_length: int = 16
    vae_dim: int = 4
    vae_res_blocks: int = 1
    vae_mult: tuple[int, ...] = (1, 2)  # Wan 2.1 has (1, 2, 4, 4), which takes four times as long to export
    vae_temporal: tuple[bool, ...] = (True,)  # Wan 2.1 has (False, True, True)
    experts: int = 2


def write_checkpoint(
    folder: Path, *, seed: int, dtype: torch.dtype = torch.float32, shards: int = 1, **sizes: Any
) -> Path:
    """Write a checkpoint with random weights of one dtype and return its folder.

    `sizes` are fields of `Sizes`. With `shards` above 1, at least so many files hold the weights of each part that the
    real repositories shard, beside an index.
    """
    size = Sizes(**sizes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts: dict[str, Any] = {name: _randomized(model).to(dtype) for name, model in _models(size).items()}
    pipeline = WanPipeline(
        tokenizer=tokenizer(size.text_length),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0),
        boundary_ratio=0.875 if size.experts == 2 else None,
        **{"transformer_2": None, **parts},
    )
    pipeline.save_pretrained(folder)
    if shards > 1:
        for name in SHARDED:
            if name in parts:
                _shard(parts[name], folder / name, shards)
    return folder


def tokenizer(text_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of T5's kind: Unigram pieces over metaspaces, and `</s>` at the end.

    Its pieces are chosen here, because training them gives other scores at each run.
    """
    words = [f"▁{word}" for sentence in SENTENCES for word in sentence.split()]
    letters = sorted({letter for word in words for letter in word})
    special = ["<pad>", "</s>", "<unk>"]
    pieces = [*special, *dict.fromkeys([*words, *letters])]
    assert len(pieces) <= VOCABULARY
    # The longer a piece, the likelier: words before the letters that they are made of.
    scores = [(piece, 0.0 if piece in special else -10.0 / len(piece)) for piece in pieces]
    backend = tokenizers.Tokenizer(models.Unigram(scores, unk_id=special.index("<unk>")))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=text_length,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def _models(size: Sizes) -> dict[str, torch.nn.Module]:
    names = ("transformer", "transformer_2")[: size.experts]
    text = UMT5Config(
        vocab_size=VOCABULARY,
        d_model=size.text_dim,
        d_kv=size.text_head_dim,
        d_ff=size.text_ffn,
        num_layers=size.text_layers,
        num_heads=size.text_heads,
        relative_attention_num_buckets=size.text_buckets,
        relative_attention_max_distance=size.text_distance,
    )
    return {
        "text_encoder": UMT5EncoderModel(text),
        "vae": AutoencoderKLWan(
            base_dim=size.vae_dim,
            num_res_blocks=size.vae_res_blocks,
            dim_mult=list(size.vae_mult),
            temperal_downsample=list(size.vae_temporal),
        ),
        **{
            name: WanTransformer3DModel(
                num_attention_heads=size.heads,
                attention_head_dim=size.head_dim,
                text_dim=size.text_dim,
                freq_dim=16,
                ffn_dim=size.ffn,
                num_layers=size.layers,
            )
            for name in names
        },
    }


@torch.no_grad()
def _randomized(model: torch.nn.Module) -> torch.nn.Module:
    """Move every parameter off the value that it is created with: a scale of 1 or a bias of 0 would hide a fault."""
    for parameter in model.parameters():
        parameter += torch.randn_like(parameter) * (0.2 if parameter.ndim == 1 else 0.2 * parameter[0].numel() ** -0.5)
    return model.eval()


def _shard(model: Any, folder: Path, shards: int) -> None:
    for path in folder.glob("*.safetensors"):
        path.unlink()
    total = sum(parameter.nbytes for parameter in model.parameters())
    model.save_pretrained(folder, max_shard_size=total // shards)
