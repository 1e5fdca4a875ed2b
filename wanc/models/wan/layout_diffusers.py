"""The diffusers layout: `model_index.json`, then one folder per part with its `config.json` and safetensors.

`transformer` is the high-noise expert and `transformer_2` the low-noise one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from wanc.errors import CheckpointError
from wanc.models.wan.causal_marks import CLASS, CausalMark, causal_marks, is_causal_class, unread
from wanc.models.wan.configuration import FIELDS, Field, checked, named, one_of, shown
from wanc.models.wan.doubts import Doubt, unread_keys, wrong_values
from wanc.models.wan.other_models import kind_of_class, refusal_by_keys, turned_off
from wanc.models.wan.scheduler import read_scheduler
from wanc.models.wan.stored import (
    END_MARK,
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
from wanc.models.wan.tokenizer_settings import CLASSES, TOKEN_KEYS, doubts_of_settings
from wanc.models.weights import Weight

PIPELINE, INDEX = "WanPipeline", "model_index.json"
TRANSFORMER = "WanTransformer3DModel"
EXPERTS = ("denoiser_high", "denoiser_low")
TOKENIZER = "tokenizer/tokenizer.json"
TOKENIZER_SETTINGS = "tokenizer/tokenizer_config.json"


@dataclass(frozen=True)
class ComponentFolder:
    """Where a component lives, and which class its configuration must name, of which library."""

    folder: str
    class_name: str
    library: str = "diffusers"
    stem: str = WEIGHTS_STEM


PARTS: Mapping[str, ComponentFolder] = {
    "text_encoder": ComponentFolder("text_encoder", "UMT5EncoderModel", "transformers", stem="model"),
    "denoiser_high": ComponentFolder("transformer", TRANSFORMER),
    "denoiser_low": ComponentFolder("transformer_2", TRANSFORMER),
    "vae_decoder": ComponentFolder("vae", "AutoencoderKLWan"),
}
# What is read of a component's configuration besides what enters its graphs.
READ_BESIDES = {
    "text_encoder": ("eos_token_id",),
    "vae_decoder": ("scale_factor_spatial", "scale_factor_temporal"),
}


def is_diffusers(root: Path) -> bool:
    """Whether the folder is in this layout."""
    return os.path.isfile(root / INDEX)


def open_diffusers(root: Path, components: Sequence[str] | None = None, *, denoisers_alone: bool = False) -> Checkpoint:
    """Open the components asked for, or all that the model has, or all of its denoisers. Raises CheckpointError."""
    index = read_json(root, INDEX)
    marks = causal_marks(index, str(root / INDEX))
    if (pipeline := index.get("_class_name")) != PIPELINE and CLASS not in marks:
        kind = kind_of_class(pipeline)
        what = f"{kind}, not supported yet: its class is {named(pipeline)}" if kind else f"a {named(pipeline)}"
        raise CheckpointError(f"this is {what}; wanc reads {PIPELINE} checkpoints", where=str(root / INDEX))
    if index.get("expand_timesteps"):
        raise CheckpointError(
            "models with a timestep per token (TI2V-5B) are not built yet; today wanc compiles text-to-video",
            where=str(root / INDEX),
        )
    if other := refusal_by_keys(index):
        raise CheckpointError(other, where=str(root / INDEX))
    read = {"boundary_ratio", "scheduler", "tokenizer", *(part.folder for part in PARTS.values())}
    read |= {*turned_off(index), *unread(index)}
    scheduler = read_scheduler(root, index.get("scheduler"))
    doubts = [*unread_keys(PIPELINE, index, read, str(root / INDEX)), *scheduler.doubts]
    present = [name for name, part in PARTS.items() if _is_present(index.get(part.folder))]
    if denoisers_alone:
        present = [name for name in present if name in EXPERTS]
    names = parts_wanted(root, present, components)
    opened = {name: _open_component(root, name, index, doubts, marks) for name in names}
    tokenizer = _tokenizer_files(root) if "text_encoder" in opened else ()
    doubts += _doubts_of_index(index, opened, str(root / INDEX))
    end_mark = _end_mark(root, doubts) if tokenizer else END_MARK
    text_length = _text_length(root, doubts) if tokenizer else LONGEST_TEXT
    files = {INDEX, *tokenizer}
    for component in opened.values():
        files |= {f"{component.folder}/config.json", *(weight.file for weight in component.weights.values())}
        files |= {component.embedding_twin.file} if component.embedding_twin else set()
    return Checkpoint(
        root=root,
        layout="diffusers",
        components=opened,
        boundary=_boundary(root, index),
        text_length=text_length,
        tokenizer=TOKENIZER if tokenizer else None,
        files=tuple(sorted(files)),
        doubts=tuple(doubts),
        shift=scheduler.shift,
        end_mark=end_mark,
        causal=marks,
    )


def _is_present(entry: object) -> bool:
    """A part of model_index.json is [library, class]; a part that the model lacks is absent, null or [null, null]."""
    return isinstance(entry, list) and bool(entry) and entry[0] is not None


def _open_component(
    root: Path, name: str, index: Mapping[str, Any], doubts: list[Doubt], marks: dict[str, CausalMark]
) -> Component:
    """One component; what its configuration says besides goes to the `doubts`, and that it is causal to the `marks`."""
    part = PARTS[name]
    where = str(root / f"{part.folder}/config.json")
    document = read_json(root, f"{part.folder}/config.json")
    _check_class(part, document.get("_class_name") or _first(document.get("architectures")), "its class", where)
    _check_class(part, index[part.folder][-1], f"the class of {part.folder}", str(root / INDEX))
    config = checked(name, document, where)
    read = {*FIELDS[name], *READ_BESIDES.get(name, ()), *turned_off(document)}
    if name in EXPERTS:
        marks |= causal_marks({CLASS: index[part.folder][-1]}, str(root / INDEX)) | causal_marks(document, where)
        read |= unread(document)
    doubts += unread_keys(part.class_name, document, read, where)
    if name == "vae_decoder":
        doubts += wrong_values(_strides(config), document, where)
    stored = sharded_weights(root, f"{part.folder}/{part.stem}.safetensors")
    twin = _share_embedding(root, stored) if name == "text_encoder" else None
    return Component(part.folder, config, matched(root, part.folder, stored, shapes(name, config)), twin)


def _doubts_of_index(index: Mapping[str, Any], parts: Collection[str], where: str) -> list[Doubt]:
    """Parts that are of another library than their class: the code of a model's own, of which wanc runs none."""
    expected: dict[str, tuple[str, Sequence[str]]] = {
        PARTS[name].folder: (PARTS[name].library, (PARTS[name].class_name,)) for name in parts
    }
    if "text_encoder" in parts:
        expected["tokenizer"] = ("transformers", CLASSES)
    doubts: list[Doubt] = []
    for folder, (library, classes) in expected.items():
        entry = index.get(folder, [library, classes[0]])
        if classes == (TRANSFORMER,) and is_causal_class(cast("list[object]", entry)[-1]):
            continue  # a denoiser is only opened where its entry names a class
        if not any(entry == [library, name] for name in classes):
            message = f"{folder} is {shown(entry)}; it must be {shown([library, classes[0]])}"
            doubts.append(Doubt(folder, message, where))
    return doubts


def _check_class(part: ComponentFolder, found: object, subject: str, where: str) -> None:
    is_causal = part.class_name == TRANSFORMER and is_causal_class(found)
    if found != part.class_name and not is_causal:
        kind = kind_of_class(found)
        message = f"{subject} is {named(found)}; {part.class_name} was expected"
        raise CheckpointError(f"this is {kind}, not supported yet: {message}" if kind else message, where=where)


def _strides(config: Mapping[str, Any]) -> dict[str, Field]:
    """How far apart latents are, as diffusers' pipeline is told; saved as the class has it, it says nothing."""
    space, time = 2 ** (len(config["dim_mult"]) - 1), 2 ** sum(config["temperal_downsample"])
    return {
        "scale_factor_spatial": one_of(*dict.fromkeys((space, 8)), default=8),
        "scale_factor_temporal": one_of(*dict.fromkeys((time, 4)), default=4),
    }


def _first(value: object) -> object:
    return cast("list[object]", value)[0] if isinstance(value, list) and value else value


def _share_embedding(root: Path, stored: dict[str, Weight]) -> Weight | None:
    """The embedding is one tensor with two names in transformers, saved under either or both.

    Returns the second one of both, whose values have to be those of the first.
    """
    tied = stored.pop(TIED_EMBEDDING, None)
    if tied is None or (shared := stored.setdefault(SHARED_EMBEDDING, tied)) is tied:
        return None
    if (tied.dtype, tied.shape) != (shared.dtype, shared.shape):
        raise CheckpointError(
            f"{TIED_EMBEDDING} and {SHARED_EMBEDDING} are one tensor under two names, and are {tied.dtype} "
            f"{list(tied.shape)} and {shared.dtype} {list(shared.shape)}",
            where=str(root / tied.file),
        )
    return tied


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


def _end_mark(root: Path, doubts: list[Doubt]) -> int:
    """The token at which a text ends, for the text encoder."""
    name = f"{PARTS['text_encoder'].folder}/config.json"
    found = read_json(root, name).get("eos_token_id", END_MARK)
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    doubts.append(Doubt("eos_token_id", f"eos_token_id is {shown(found)}, not one token", str(root / name)))
    return END_MARK


def _text_length(root: Path, doubts: list[Doubt]) -> int:
    if not os.path.isfile(root / TOKENIZER_SETTINGS):
        return LONGEST_TEXT
    document, where = read_json(root, TOKENIZER_SETTINGS), str(root / TOKENIZER_SETTINGS)
    doubts += unread_keys("tokenizer", document, {"model_max_length", *TOKEN_KEYS, "tokenizer_class"}, where)
    doubts += doubts_of_settings(document, (root / TOKENIZER).read_bytes(), where)
    declared = document.get("model_max_length")
    # `>=` is false for NaN, which JSON parsers let through.
    if declared is not None and (
        isinstance(declared, bool) or not isinstance(declared, (int, float)) or not declared >= 1
    ):
        raise CheckpointError(f"model_max_length is {shown(declared)}, not a number of tokens", where=where)
    return int(min(declared or LONGEST_TEXT, LONGEST_TEXT))
