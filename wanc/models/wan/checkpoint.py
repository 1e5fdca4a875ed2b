"""Opening a Wan checkpoint, in either layout: configurations and headers, never a weight, never torch."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from wanc.errors import CheckpointError
from wanc.models.wan.doubts import refuse
from wanc.models.wan.foreign_files import kind_of_name, what_is_there
from wanc.models.wan.layout_diffusers import is_diffusers, open_diffusers
from wanc.models.wan.layout_original import is_original, open_original
from wanc.models.wan.stored import Checkpoint, Component
from wanc.models.wan.tensors import SHARED_EMBEDDING
from wanc.models.weights import Weight

__all__ = ["Checkpoint", "Component", "embedding", "open_checkpoint", "open_located", "read_checkpoint"]

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
    name, path = next(iter(files.items()))
    return read_checkpoint(path.parents[name.count("/")], components)


def open_checkpoint(root: Path, components: Sequence[str] | None = None, allowed: Collection[str] = ()) -> Checkpoint:
    """Find out the layout of the checkpoint and open the components asked for (default: all that the model has).

    Names and configurations are diffusers' whichever the layout. Raises CheckpointError where the folder holds no
    checkpoint, where a file is missing, damaged or of another model, and where a configuration says something that
    wanc does not do, unless its key is in `allowed`.
    """
    checkpoint = read_checkpoint(root, components)
    refuse(checkpoint.doubts, allowed)
    return checkpoint


def read_checkpoint(root: Path, components: Sequence[str] | None = None) -> Checkpoint:
    """As `open_checkpoint`, with what it says besides in `doubts`, where whoever asked has to look at it."""
    if not os.path.isdir(root):
        kind = kind_of_name(root) if os.path.isfile(root) else None
        reason = "not a folder" if os.path.lexists(root) else "no such folder"
        raise CheckpointError(f"{reason}, but {kind}" if kind else reason, where=str(root), hint=LAYOUTS_HINT)
    if not is_diffusers(root) and is_diffusers(above := Path(os.path.abspath(root)).parent):
        hint = f"name the checkpoint's folder, {above}"
        raise CheckpointError("one part of a checkpoint, whose model_index.json lies above", where=str(root), hint=hint)
    if is_diffusers(root):
        checkpoint = open_diffusers(root, components)
    elif is_original(root):
        checkpoint = open_original(root, components)
    else:
        found, reason = what_is_there(root), "not a Wan checkpoint in either layout"
        raise CheckpointError(f"{reason}: {found}" if found else reason, where=str(root), hint=LAYOUTS_HINT)
    _check_agreement(root, checkpoint.components)
    return checkpoint


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
