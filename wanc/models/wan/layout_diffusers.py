"""The diffusers layout: `model_index.json`, then one folder per part with its `config.json` and safetensors.

`transformer` is the high-noise expert and `transformer_2` the low-noise one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from wanc.errors import CheckpointError
from wanc.models.wan.configuration import Field, checked, checked_fields, named, one_of, positive, shown
from wanc.models.wan.stored import (
    LONGEST_TEXT,
    WEIGHTS_STEM,
    Checkpoint,
    Component,
    matched,
    parts_wanted,
    read_json,
    sharded_weights,
)
from wanc.models.wan.tensors import SHARED_EMBEDDING, TIED_EMBEDDING, shapes
from wanc.models.weights import Weight

INDEX = "model_index.json"
TOKENIZER = "tokenizer/tokenizer.json"
TOKENIZER_SETTINGS = "tokenizer/tokenizer_config.json"
SCHEDULER = "scheduler/scheduler_config.json"
SCHEDULER_FIELDS: Mapping[str, Field] = {
    "prediction_type": one_of("flow_prediction", default="flow_prediction"),
    "use_flow_sigmas": one_of(True, default=True),
    "num_train_timesteps": one_of(1000, default=1000),
    "flow_shift": positive(default=1.0),
}
"""What the recipe's solvers take for granted; which of them, and with what shift, is the recipe's own affair."""


@dataclass(frozen=True)
class ComponentFolder:
    """Where a component lives, and which class its configuration must name."""

    folder: str
    class_name: str
    stem: str = WEIGHTS_STEM


PARTS: Mapping[str, ComponentFolder] = {
    "text_encoder": ComponentFolder("text_encoder", "UMT5EncoderModel", stem="model"),
    "denoiser_high": ComponentFolder("transformer", "WanTransformer3DModel"),
    "denoiser_low": ComponentFolder("transformer_2", "WanTransformer3DModel"),
    "vae_decoder": ComponentFolder("vae", "AutoencoderKLWan"),
}


def is_diffusers(root: Path) -> bool:
    """Whether the folder is in this layout."""
    return os.path.isfile(root / INDEX)


def open_diffusers(root: Path, components: Sequence[str] | None) -> Checkpoint:
    """Open the components asked for, or all. Raises CheckpointError."""
    index = read_json(root, INDEX)
    if index.get("_class_name") != "WanPipeline":
        raise CheckpointError(
            f"this is a {named(index.get('_class_name'))}; wanc reads WanPipeline checkpoints", where=str(root / INDEX)
        )
    if index.get("expand_timesteps"):
        raise CheckpointError(
            "models with a timestep per token (TI2V-5B) are not built yet; today wanc compiles text-to-video",
            where=str(root / INDEX),
        )
    _check_scheduler(root)
    present = [name for name, part in PARTS.items() if _is_present(index.get(part.folder))]
    names = parts_wanted(root, present, components)
    opened = {name: _open_component(root, name, PARTS[name]) for name in names}
    tokenizer = _tokenizer_files(root) if "text_encoder" in opened else ()
    files = {INDEX, *tokenizer}
    for component in opened.values():
        files |= {f"{component.folder}/config.json", *(weight.file for weight in component.weights.values())}
    return Checkpoint(
        root=root,
        layout="diffusers",
        components=opened,
        boundary=_boundary(root, index),
        text_length=_text_length(root) if tokenizer else LONGEST_TEXT,
        tokenizer=TOKENIZER if tokenizer else None,
        files=tuple(sorted(files)),
    )


def _is_present(entry: object) -> bool:
    """A part of model_index.json is [library, class]; a part that the model lacks is absent, null or [null, null]."""
    return isinstance(entry, list) and bool(entry) and entry[0] is not None


def _open_component(root: Path, name: str, part: ComponentFolder) -> Component:
    config_name = f"{part.folder}/config.json"
    document = read_json(root, config_name)
    found = document.get("_class_name") or _first(document.get("architectures"))
    if found != part.class_name:
        raise CheckpointError(
            f"its class is {named(found)}; {part.class_name} was expected", where=str(root / config_name)
        )
    config = checked(name, document, str(root / config_name))
    stored = sharded_weights(root, f"{part.folder}/{part.stem}.safetensors")
    if name == "text_encoder":
        _share_embedding(stored)
    return Component(part.folder, config, matched(root, part.folder, stored, shapes(name, config)))


def _first(value: object) -> object:
    return cast("list[object]", value)[0] if isinstance(value, list) and value else value


def _share_embedding(stored: dict[str, Weight]) -> None:
    """The embedding is one tensor with two names in transformers, saved under either or both."""
    tied = stored.pop(TIED_EMBEDDING, None)
    if tied is not None:
        stored.setdefault(SHARED_EMBEDDING, tied)


def _boundary(root: Path, index: Mapping[str, Any]) -> float | None:
    boundary = index.get("boundary_ratio")
    if boundary is None:
        return None
    if isinstance(boundary, bool) or not isinstance(boundary, (int, float)) or not 0 < boundary <= 1:
        raise CheckpointError(
            f"boundary_ratio is {shown(boundary)}; it must be null or a number above 0 and at most 1",
            where=str(root / INDEX),
        )
    return float(boundary)


def _tokenizer_files(root: Path) -> tuple[str, ...]:
    if not os.path.isfile(root / TOKENIZER):
        raise CheckpointError("missing tokenizer", where=str(root / TOKENIZER))
    return (TOKENIZER, TOKENIZER_SETTINGS) if os.path.isfile(root / TOKENIZER_SETTINGS) else (TOKENIZER,)


def _check_scheduler(root: Path) -> None:
    """Raises CheckpointError where the model was trained for another kind of scheduler; nothing of it is built."""
    if os.path.isfile(root / SCHEDULER):
        checked_fields(SCHEDULER_FIELDS, read_json(root, SCHEDULER), str(root / SCHEDULER))


def _text_length(root: Path) -> int:
    if not os.path.isfile(root / TOKENIZER_SETTINGS):
        return LONGEST_TEXT
    declared = read_json(root, TOKENIZER_SETTINGS).get("model_max_length")
    # `>=` is false for NaN, which JSON parsers let through.
    if declared is not None and (
        isinstance(declared, bool) or not isinstance(declared, (int, float)) or not declared >= 1
    ):
        raise CheckpointError(
            f"model_max_length is {shown(declared)}, not a number of tokens", where=str(root / TOKENIZER_SETTINGS)
        )
    return int(min(declared or LONGEST_TEXT, LONGEST_TEXT))
