"""Reading a Wan checkpoint in the diffusers layout: configurations and headers, never a weight, never torch.

Layout: `model_index.json`, then one folder per part with its `config.json` and safetensors, sharded or not;
`transformer` is the high-noise expert and `transformer_2` the low-noise one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from wanc.errors import CheckpointError
from wanc.models.weights import Weight
from wanc.runtime.errors import BundleError
from wanc.runtime.safetensors import read_header

# Wan was trained with 512 text tokens; a tokenizer may declare fewer, and some declare a meaningless 10^30.
LONGEST_TEXT = 512
ONNX_DTYPES = {"F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16"}
EMBEDDING_NAMES = ("shared.weight", "encoder.embed_tokens.weight")


@dataclass(frozen=True)
class Part:
    """Where a component lives in the layout, and which class and keys its configuration must have."""

    folder: str
    class_name: str
    keys: tuple[str, ...]
    stem: str = "diffusion_pytorch_model"


TEXT_ENCODER_KEYS = ("d_model", "d_kv", "d_ff", "num_layers", "num_heads", "vocab_size")
DENOISER_KEYS = (
    "patch_size", "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "text_dim",
    "ffn_dim", "num_layers", "rope_max_seq_len",
)  # fmt: skip
VAE_KEYS = ("base_dim", "z_dim", "dim_mult", "num_res_blocks", "temperal_downsample", "latents_mean", "latents_std")

PARTS: Mapping[str, Part] = {
    "text_encoder": Part("text_encoder", "UMT5EncoderModel", TEXT_ENCODER_KEYS, stem="model"),
    "denoiser_high": Part("transformer", "WanTransformer3DModel", DENOISER_KEYS),
    "denoiser_low": Part("transformer_2", "WanTransformer3DModel", DENOISER_KEYS),
    "vae_decoder": Part("vae", "AutoencoderKLWan", VAE_KEYS),
}


@dataclass(frozen=True)
class Component:
    """One component as stored. `folder` is relative to the checkpoint, as are the files of its weights."""

    folder: str
    config: Mapping[str, Any]
    weights: Mapping[str, Weight]


@dataclass(frozen=True)
class Checkpoint:
    """A Wan model on disk. `files` lists everything that was or will be read, relative to `root`."""

    root: Path
    components: Mapping[str, Component]
    boundary: float | None
    text_length: int
    files: tuple[str, ...]


def open_checkpoint(root: Path, components: tuple[str, ...] | None = None) -> Checkpoint:
    """Read the layout of the components asked for (default: all that the model has).

    Raises CheckpointError where a file is missing, damaged or of another model.
    """
    if not root.is_dir():
        raise CheckpointError(
            "no such folder" if not root.exists() else "not a folder",
            where=str(root),
            hint="model.source is a folder in the diffusers layout, with a model_index.json",
        )
    index = _read_json(root, "model_index.json")
    if index.get("_class_name") != "WanPipeline":
        raise CheckpointError(
            f"this is a {index.get('_class_name')}; wanc reads WanPipeline checkpoints",
            where=str(root / "model_index.json"),
        )
    present = tuple(name for name, part in PARTS.items() if _is_present(index.get(part.folder)))
    names = components or present
    if missing := [name for name in names if name not in present]:
        raise CheckpointError(
            f"the model has no component {missing[0]}", where=str(root), hint=f"it has: {', '.join(present)}"
        )
    opened = {name: _open_component(root, PARTS[name]) for name in names}
    tokenizer = _tokenizer_files(root) if "text_encoder" in opened else ()
    files = {"model_index.json", *tokenizer}
    for component in opened.values():
        files |= {f"{component.folder}/config.json", *(weight.file for weight in component.weights.values())}
    return Checkpoint(
        root=root,
        components=opened,
        boundary=index.get("boundary_ratio"),
        text_length=_text_length(root) if tokenizer else LONGEST_TEXT,
        files=tuple(sorted(files)),
    )


def embedding(component: Component) -> Weight:
    """The text encoder's embedding table, [vocabulary, d_model]."""
    for name in EMBEDDING_NAMES:
        if name in component.weights:
            return component.weights[name]
    raise CheckpointError(f"the weights hold no {' or '.join(EMBEDDING_NAMES)}", where=component.folder)


def _is_present(entry: object) -> bool:
    """A part of model_index.json is [library, class]; a part that the model lacks is absent, null or [null, null]."""
    return isinstance(entry, list) and bool(entry) and entry[0] is not None


def _open_component(root: Path, part: Part) -> Component:
    config = _read_json(root, f"{part.folder}/config.json")
    found = config.get("_class_name") or (config.get("architectures") or [None])[0]
    if found != part.class_name:
        raise CheckpointError(
            f"its class is {found}; {part.class_name} was expected", where=str(root / part.folder / "config.json")
        )
    if missing := [key for key in part.keys if key not in config]:
        raise CheckpointError(f"has no {missing[0]}", where=str(root / part.folder / "config.json"))
    if unsupported := _unsupported(config):
        raise CheckpointError(unsupported, where=str(root / part.folder / "config.json"))
    return Component(part.folder, config, _weights(root, part))


def _unsupported(config: Mapping[str, Any]) -> str | None:
    """Why a model of the right class is still one that wanc does not compile yet."""
    if config.get("image_dim") is not None or config.get("added_kv_proj_dim") is not None:
        return "image-to-video models are not built yet; today wanc compiles text-to-video"
    if config.get("in_channels") != config.get("out_channels") and "num_attention_heads" in config:
        return "image-to-video models are not built yet; today wanc compiles text-to-video"
    if config.get("is_residual"):
        return "the residual VAE of Wan 2.2 5B is not built yet; today wanc compiles the 2.1 VAE of the A14B models"
    return None


def _weights(root: Path, part: Part) -> dict[str, Weight]:
    """Every tensor of a part by its canonical name, from one file or from shards with an index."""
    single = f"{part.folder}/{part.stem}.safetensors"
    index_name = f"{single}.index.json"
    if (root / index_name).is_file():
        located = _weight_map(root, index_name)
        shards = sorted({f"{part.folder}/{file}" for file in located.values()})
    else:
        located, shards = None, [single]
    weights: dict[str, Weight] = {}
    for shard in shards:
        weights |= _shard_weights(root, shard)
    if located is not None and (absent := sorted(located.keys() - weights.keys())):
        raise CheckpointError(
            f"the index names {absent[0]}, which {located[absent[0]]} does not hold", where=str(root / index_name)
        )
    return weights


def _weight_map(root: Path, index_name: str) -> dict[str, str]:
    """The index's tensor → file. A file elsewhere than beside the index would be read behind the user's back."""
    located = _read_json(root, index_name).get("weight_map")
    if not isinstance(located, dict) or not all(
        isinstance(file, str) and "/" not in file for file in cast("dict[str, object]", located).values()
    ):
        raise CheckpointError(
            "weight_map must name a file of this folder for each tensor", where=str(root / index_name)
        )
    return cast("dict[str, str]", located)


def _shard_weights(root: Path, shard: str) -> dict[str, Weight]:
    path = root / shard
    if not path.is_file():
        raise CheckpointError("missing weights", where=str(path), hint="is the download complete?")
    try:
        header = read_header(path)
    except BundleError as error:
        raise CheckpointError("not a readable safetensors file", where=str(path)) from error
    weights: dict[str, Weight] = {}
    for name, info in header.items():
        if info.dtype not in ONNX_DTYPES:
            raise CheckpointError(
                f"{name} has dtype {info.dtype}; wanc reads {', '.join(ONNX_DTYPES)}", where=str(path)
            )
        weights[name] = Weight(shard, info.offset, info.length, ONNX_DTYPES[info.dtype], tuple(info.shape))
    return weights


def _tokenizer_files(root: Path) -> tuple[str, ...]:
    required = "tokenizer/tokenizer.json"
    if not (root / required).is_file():
        raise CheckpointError("missing tokenizer", where=str(root / required))
    settings = "tokenizer/tokenizer_config.json"
    return (required, settings) if (root / settings).is_file() else (required,)


def _text_length(root: Path) -> int:
    settings = "tokenizer/tokenizer_config.json"
    declared = _read_json(root, settings).get("model_max_length") if (root / settings).is_file() else None
    if declared is not None and not (isinstance(declared, (int, float)) and declared >= 1):
        raise CheckpointError(f"model_max_length is {declared!r}, not a number of tokens", where=str(root / settings))
    return int(min(declared or LONGEST_TEXT, LONGEST_TEXT))


def _read_json(root: Path, name: str) -> dict[str, Any]:
    path = root / name
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError("missing file", where=str(path)) from error
    except (OSError, ValueError) as error:
        raise CheckpointError("not a readable JSON file", where=str(path)) from error
    if not isinstance(document, dict):
        raise CheckpointError("a JSON object was expected", where=str(path))
    return cast("dict[str, Any]", document)
