"""A checkpoint of the A14B model's width, and of two blocks only, with random weights in bfloat16."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

TEXT_LENGTH = 512
TRANSFORMER = {
    "num_attention_heads": 40,
    "attention_head_dim": 128,
    "ffn_dim": 13824,
    "text_dim": 4096,
    "freq_dim": 256,
    "num_layers": 2,
}
# The real encoder's width; its depth and vocabulary do not matter here.
TEXT_ENCODER = {"d_model": 4096, "d_kv": 64, "num_heads": 2, "d_ff": 256, "num_layers": 1}
PIECE = 2**24  # values held at once


def write_wide_checkpoint(folder: Path, tiny: Path, *, seed: int) -> Path:
    """Write the checkpoint with the tokenizer, the scheduler and the VAE (z = 16, as Wan 2.1's) of tiny-wan."""
    for part in ("scheduler", "tokenizer", "vae"):
        shutil.copytree(tiny / part, folder / part)
    shutil.copy(tiny / "model_index.json", folder)
    _set(folder / "tokenizer" / "tokenizer_config.json", model_max_length=TEXT_LENGTH)
    _write_text_encoder(folder / "text_encoder", json.loads((tiny / "text_encoder" / "config.json").read_text()), seed)
    for index, part in enumerate(("transformer", "transformer_2")):
        _write_transformer(folder / part, seed + index)
    return folder


def _set(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _write_text_encoder(folder: Path, tiny: Mapping[str, object], seed: int) -> None:
    torch.manual_seed(seed)
    UMT5EncoderModel(UMT5Config(vocab_size=tiny["vocab_size"], **TEXT_ENCODER)).to(torch.bfloat16).save_pretrained(
        folder
    )


def _write_transformer(folder: Path, seed: int) -> None:
    """A weights file is longer than what a test should hold: it is made a piece at a time."""
    folder.mkdir(parents=True)
    with torch.device("meta"):
        model = WanTransformer3DModel(**TRANSFORMER)
    model.save_config(folder)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with (folder / "diffusion_pytorch_model.safetensors").open("wb") as file:
        header: dict[str, object] = {}
        end = 0
        for name, shape in shapes.items():
            start, end = end, end + 2 * int(np.prod(shape))
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
        encoded = json.dumps(header).encode()
        encoded += b" " * (-len(encoded) % 8)
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        random = np.random.Generator(np.random.Philox(seed))
        for shape in shapes.values():
            # What keeps activations near 1 through a product; vectors are scales, shifts and biases.
            scale = 0.1 if len(shape) == 1 else float(np.prod(shape[1:])) ** -0.5
            remaining = int(np.prod(shape))
            while remaining:
                count = min(remaining, PIECE)
                file.write(_bfloat16(random, count, scale).tobytes())
                remaining -= count


def _bfloat16(random: np.random.Generator, count: int, scale: float) -> np.ndarray:
    """`count` values, even in ±1.73 * scale (a standard deviation of `scale`), cut to the bits of bfloat16."""
    values = random.random(count, dtype=np.float32)
    values -= np.float32(0.5)
    values *= np.float32(scale * 12**0.5)
    return (values.view(np.uint32) >> 16).astype("<u2")
