"""Opening a Wan checkpoint, in either layout: configurations and headers, never a weight, never torch."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from wanc.errors import CheckpointError
from wanc.models.wan.causal_marks import CLASS
from wanc.models.wan.companion import SHARED, with_companion
from wanc.models.wan.configuration import named
from wanc.models.wan.doubts import refuse
from wanc.models.wan.foreign_files import kind_of_name, what_is_there
from wanc.models.wan.layout_diffusers import is_diffusers, open_diffusers
from wanc.models.wan.layout_original import is_original, open_original
from wanc.models.wan.stored import COMPANION, Checkpoint, Component, parts_wanted
from wanc.models.wan.tensors import SHARED_EMBEDDING
from wanc.models.weights import Weight
from wanc.words import Family

__all__ = [
    "Checkpoint",
    "Component",
    "embedding",
    "open_checkpoint",
    "open_located",
    "read_checkpoint",
    "read_denoisers",
]

LAYOUTS_HINT = (
    "the diffusers layout has a model_index.json; the original layout has high_noise_model/ and low_noise_model/, "
    "or, for a single expert, a config.json beside its diffusion_pytorch_model*.safetensors"
)
# Where two components meet: (component, key) of either side.
MEETING_POINTS = (
    (("denoiser_high", "text_dim"), ("text_encoder", "d_model")),
    (("denoiser_low", "text_dim"), ("text_encoder", "d_model")),
    (("denoiser_high", "in_channels"), ("vae_decoder", "z_dim")),
    (("denoiser_low", "in_channels"), ("vae_decoder", "z_dim")),
)


def open_located(files: Mapping[str, Path], components: Sequence[str] | None = None) -> Checkpoint:
    """The checkpoint that some files belong to, which are given by their names in it. Raises as `open_checkpoint`.

    What it says besides was refused or allowed when the recipe was resolved.
    """
    # The folder `companion/` is in names alone.
    roots = {
        name.startswith(COMPANION): path.parents[name.removeprefix(COMPANION).count("/")]
        for name, path in files.items()
    }
    return read_checkpoint(roots[False], components, roots.get(True))


def open_checkpoint(
    root: Path,
    components: Sequence[str] | None = None,
    allowed: Collection[str] = (),
    *,
    family: Family = "wan",
    companion: Path | None = None,
) -> Checkpoint:
    """Find out the layout of the checkpoint and open the components asked for (default: all that the model has).

    Names and configurations are diffusers' whichever the layout. Of a `companion`, another checkpoint, are the text
    encoder, the tokenizer and the VAE. Raises CheckpointError where the folder holds no checkpoint, where a file is
    missing, damaged or of another model, where the model is of another family, and where a configuration says something
    that wanc does not do, unless its key is in `allowed`.
    """
    checkpoint = read_checkpoint(root, components, companion)
    _check_family(checkpoint, family, allowed)
    refuse(checkpoint.doubts, allowed)
    return checkpoint


def read_checkpoint(root: Path, components: Sequence[str] | None = None, companion: Path | None = None) -> Checkpoint:
    """As `open_checkpoint`, with what it says besides in `doubts`, and its family in `causal`, for whoever asked."""
    if companion is None:
        checkpoint = _read(root, components, denoisers_alone=False)
    else:
        both = with_companion(_read(root, None, denoisers_alone=True), _read(companion, SHARED))
        names = parts_wanted(root, [*both.components], components)
        checkpoint = replace(both, components={name: both.components[name] for name in names})
    _check_agreement(root, checkpoint.components)
    return checkpoint


def read_denoisers(root: Path) -> Checkpoint:
    """As `read_checkpoint`, of the denoisers alone, which say what a model is. Raises CheckpointError."""
    return _read(root, None, denoisers_alone=True)


def _read(root: Path, components: Sequence[str] | None, *, denoisers_alone: bool = False) -> Checkpoint:
    if not os.path.isdir(root):
        kind = kind_of_name(root) if os.path.isfile(root) else None
        reason = "not a folder" if os.path.lexists(root) else "no such folder"
        raise CheckpointError(f"{reason}, but {kind}" if kind else reason, where=str(root), hint=LAYOUTS_HINT)
    if not is_diffusers(root) and is_diffusers(above := Path(os.path.abspath(root)).parent):
        hint = f"name the checkpoint's folder, {above}"
        raise CheckpointError("one part of a checkpoint, whose model_index.json lies above", where=str(root), hint=hint)
    if is_diffusers(root):
        return open_diffusers(root, components, denoisers_alone=denoisers_alone)
    if is_original(root):
        return open_original(root, components, denoisers_alone=denoisers_alone)
    found, reason = what_is_there(root), "not a Wan checkpoint in either layout"
    raise CheckpointError(f"{reason}: {found}" if found else reason, where=str(root), hint=LAYOUTS_HINT)


def _check_family(checkpoint: Checkpoint, family: Family, allowed: Collection[str]) -> None:
    """A causal model's weights run as a bidirectional one's, and conversely: the video is noise, without a word."""
    key, mark = next(iter(checkpoint.causal.items()), (None, None))
    if family == "wan" and mark is not None:
        what = f"its class, {named(mark.value)}" if key == CLASS else f"its {key}"
        raise CheckpointError(
            f"this is a causal model, by {what}: it makes videos chunk by chunk, and looks back alone",
            where=mark.where,
            hint="write `family: wan-causal` under model, and under runtime what it keeps: `kv_cache: {chunk: 3, …}`",
        )
    if family == "wan-causal" and mark is None and "family" not in allowed:
        raise CheckpointError(
            "nothing says that this model is causal: neither a class nor a key such as num_frame_per_block; one that "
            "was trained to see all frames of a video makes noise of chunks",
            where=str(checkpoint.root),
            hint="write `family: wan` under model; if it was trained causally, let it pass: `allow: [family]`",
        )


def embedding(component: Component) -> Weight:
    """The text encoder's embedding table, [vocabulary, d_model]."""
    return component.weights[SHARED_EMBEDDING]


def _check_agreement(root: Path, components: Mapping[str, Component]) -> None:
    for ours, theirs in MEETING_POINTS:
        if ours[0] in components and theirs[0] in components:
            one, other = components[ours[0]].config[ours[1]], components[theirs[0]].config[theirs[1]]
            if one != other:
                raise CheckpointError(
                    f"{ours[1]} of {ours[0]} is {one}, and {theirs[1]} of {theirs[0]} is {other}: "
                    "they are not of one model",
                    where=str(root),
                )
