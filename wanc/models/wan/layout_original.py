"""The layout of the original code's repositories: the experts in safetensors, VAE and text encoder in pickles.

Two experts lie in `high_noise_model/` and `low_noise_model/`, a single one beside everything else. The pickles are
never read here: `wanc convert` writes the same tensors, under the same names, to a safetensors file beside each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wanc.errors import CheckpointError
from wanc.models.wan.causal_marks import CausalMark, causal_marks, is_causal_class, unread
from wanc.models.wan.configuration import (
    DENOISER,
    MOST_LAYERS,
    Field,
    checked,
    checked_fields,
    named,
    one_of,
    positive,
    shown,
    whole,
)
from wanc.models.wan.doubts import Doubt, unread_keys
from wanc.models.wan.original_keys import original_names
from wanc.models.wan.original_shapes import UnknownModelError, text_encoder_config, vae_config
from wanc.models.wan.other_models import NOT_BUILT_YET, kind_of_class, refusal_by_keys, turned_off
from wanc.models.wan.stored import (
    LONGEST_TEXT,
    WEIGHTS_STEM,
    Checkpoint,
    Component,
    file_weights,
    matched,
    parts_wanted,
    read_json,
    sharded_weights,
)
from wanc.models.wan.tensors import shapes
from wanc.models.weights import Weight

# Of Wan2.2-T2V-A14B, the one text-to-video model of two experts (wan/configs/wan_t2v_A14B.py).
BOUNDARY = 0.875
ROPE_LENGTH = 1024
HIGH, LOW = "high_noise_model", "low_noise_model"
TOKENIZER = "google/umt5-xxl/tokenizer.json"
TEXT_ENCODER_FILE = "models_t5_umt5-xxl-enc-bf16.safetensors"
VAE_FILE = "Wan2.1_VAE.safetensors"
WIDTH = DENOISER["attention_head_dim"]

FIELDS: Mapping[str, Field] = {
    "dim": whole(),
    "num_heads": whole(),
    "num_layers": whole(MOST_LAYERS),
    "ffn_dim": whole(),
    "freq_dim": DENOISER["freq_dim"],
    "in_dim": whole(),
    "out_dim": whole(),
    "eps": positive(),
    "text_len": whole(LONGEST_TEXT),
    # What the published configurations leave to the code's defaults.
    "text_dim": whole(default=4096),
    "patch_size": replace(DENOISER["patch_size"], default=[1, 2, 2]),
    "qk_norm": one_of(True, default=True),
    "cross_attn_norm": one_of(True, default=True),
    "window_size": Field("[-1, -1]", lambda value: value == [-1, -1], [-1, -1]),
}


def is_original(root: Path) -> bool:
    """Whether the folder is in this layout."""
    if any(os.path.isdir(root / folder) for folder in (HIGH, LOW)):
        return True
    return os.path.isfile(root / "config.json") and any(root.glob(f"{WEIGHTS_STEM}*.safetensors"))


def open_original(root: Path, components: Sequence[str] | None = None, *, denoisers_alone: bool = False) -> Checkpoint:
    """Open the components asked for, or all, or all denoisers. Raises CheckpointError."""
    folders = _expert_folders(root)
    doubts: list[Doubt] = []
    marks: dict[str, CausalMark] = {}
    settings = {name: _expert_settings(root, folder, doubts, marks) for name, folder in folders.items()}
    text_length = _common_text_length(root, folders, settings)
    present = [*folders] if denoisers_alone else ["text_encoder", *folders, "vae_decoder"]
    names = parts_wanted(root, present, components)
    opened = {name: _open_component(root, name, folders, settings) for name in names}
    tokenizer = _tokenizer(root) if "text_encoder" in opened else None
    configs = [_path(folder, "config.json") for folder in folders.values()]
    weights = [weight.file for component in opened.values() for weight in component.weights.values()]
    return Checkpoint(
        root=root,
        layout="original",
        components=opened,
        boundary=BOUNDARY if len(folders) == 2 else None,
        text_length=text_length,
        tokenizer=tokenizer,
        files=tuple(sorted({*configs, *weights, *([tokenizer] if tokenizer else [])})),
        doubts=tuple(doubts),
        causal=marks,
    )


def _expert_folders(root: Path) -> dict[str, str]:
    """Component → its folder, relative to the checkpoint."""
    present = [folder for folder in (HIGH, LOW) if os.path.isdir(root / folder)]
    if not present:
        return {"denoiser_high": "."}
    if len(present) == 1:
        (missing,) = {HIGH, LOW} - {*present}
        raise CheckpointError(
            f"has {present[0]} and no {missing}; the model has two experts",
            where=str(root),
            hint="is the download complete? To build this expert alone, move what its folder holds out of it",
        )
    return {"denoiser_high": HIGH, "denoiser_low": LOW}


def _expert_settings(root: Path, folder: str, doubts: list[Doubt], marks: dict[str, CausalMark]) -> dict[str, Any]:
    """An expert's `config.json`, checked; what it says besides goes to `doubts`, that it is causal to `marks`."""
    name = _path(folder, "config.json")
    document = read_json(root, name)
    marks |= causal_marks(document, str(root / name))
    if (found := document.get("_class_name")) != "WanModel" and not is_causal_class(found):
        kind = kind_of_class(found)
        what = (
            f"this is {kind}, not supported yet: its class is {named(found)}"
            if kind
            else f"its class is {named(found)}"
        )
        raise CheckpointError(f"{what}; WanModel was expected", where=str(root / name))
    if other := refusal_by_keys(document):
        raise CheckpointError(other, where=str(root / name))
    if document.get("model_type") != "t2v":
        raise CheckpointError(
            f"models of type {shown(document.get('model_type'))} are not built yet; "
            'today wanc compiles text-to-video, "t2v"',
            where=str(root / name),
        )
    settings = checked_fields(FIELDS, document, str(root / name))
    dim, heads = settings["dim"], settings["num_heads"]
    if dim % heads:
        raise CheckpointError(f"dim is {dim}, which does not divide into {heads} heads", where=str(root / name))
    if not WIDTH.holds(dim // heads):
        raise CheckpointError(
            f"a head has {dim // heads} channels, dim by num_heads; it must be {WIDTH.must_be}", where=str(root / name)
        )
    if settings["in_dim"] != settings["out_dim"]:
        raise CheckpointError(NOT_BUILT_YET, where=str(root / name))
    read = {*FIELDS, "model_type", *turned_off(document), *unread(document)}
    doubts += unread_keys("WanModel", document, read, str(root / name))
    return settings


def _common_text_length(root: Path, folders: Mapping[str, str], settings: Mapping[str, Mapping[str, Any]]) -> int:
    lengths = {name: setting["text_len"] for name, setting in settings.items()}
    first = lengths["denoiser_high"]
    for name, length in lengths.items():
        if length != first:
            raise CheckpointError(
                f"text_len is {length}, and {first} in the high-noise expert",
                where=str(root / _path(folders[name], "config.json")),
            )
    return first


def _open_component(
    root: Path, name: str, folders: Mapping[str, str], settings: Mapping[str, Mapping[str, Any]]
) -> Component:
    if name == "text_encoder":
        return _converted(root, name, TEXT_ENCODER_FILE, text_encoder_config)
    if name == "vae_decoder":
        return _converted(root, name, VAE_FILE, vae_config)
    folder = folders[name]
    config = checked(name, _canonical(settings[name]), str(root / _path(folder, "config.json")))
    stored = sharded_weights(root, _path(folder, f"{WEIGHTS_STEM}.safetensors"))
    return _renamed(root, name, folder, config, stored)


def _canonical(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The original's settings under diffusers' keys."""
    return {
        "patch_size": settings["patch_size"],
        "num_attention_heads": settings["num_heads"],
        "attention_head_dim": settings["dim"] // settings["num_heads"],
        "in_channels": settings["in_dim"],
        "out_channels": settings["out_dim"],
        "text_dim": settings["text_dim"],
        "ffn_dim": settings["ffn_dim"],
        "num_layers": settings["num_layers"],
        "rope_max_seq_len": ROPE_LENGTH,
        "freq_dim": settings["freq_dim"],
        "eps": settings["eps"],
    }


def _converted(root: Path, name: str, file: str, guess: Callable[[Mapping[str, Weight]], dict[str, Any]]) -> Component:
    """A component from the safetensors file that stands for a pickle, and that holds no configuration."""
    pickle = Path(file).with_suffix(".pth")
    if not os.path.isfile(root / file) and os.path.isfile(root / pickle):
        raise CheckpointError(
            "a pickle, which can run code when it is read: wanc reads safetensors only",
            where=str(root / pickle),
            hint=f"convert it once: wanc convert {root / pickle}",
        )
    stored = file_weights(root, file)
    try:
        document = guess(stored)
    except UnknownModelError as error:
        raise CheckpointError(str(error), where=str(root / file)) from None
    return _renamed(root, name, ".", checked(name, document, str(root / file)), stored)


def _renamed(root: Path, name: str, folder: str, config: Mapping[str, Any], stored: Mapping[str, Weight]) -> Component:
    """The component with its tensors under canonical names. Faults are told in the names that the files use."""
    expected = shapes(name, config)
    originals = original_names(name, config, expected)
    weights = matched(root, folder, stored, {originals[canonical]: shape for canonical, shape in expected.items()})
    return Component(folder, config, {canonical: weights[original] for canonical, original in originals.items()})


def _tokenizer(root: Path) -> str:
    if not os.path.isfile(root / TOKENIZER):
        raise CheckpointError("missing tokenizer", where=str(root / TOKENIZER))
    return TOKENIZER


def _path(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"
