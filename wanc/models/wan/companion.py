"""Denoisers of one checkpoint with the text encoder, the tokenizer and the VAE of another.

Models that were trained on from a published one come as denoisers alone: Self-Forcing, CausVid, or any fine-tune.
"""

from __future__ import annotations

from dataclasses import replace

from wanc.errors import CheckpointError
from wanc.models.wan.stored import COMPANION, Checkpoint, Component

SHARED = ("text_encoder", "vae_decoder")
"""What a companion gives."""


def with_companion(denoisers: Checkpoint, companion: Checkpoint) -> Checkpoint:
    """One checkpoint of both. Raises CheckpointError where the companion lacks a part."""
    shared = {name: _renamed(companion.components[name]) for name in SHARED if name in companion.components}
    if missing := [name for name in SHARED if name not in shared]:
        raise CheckpointError(f"the companion has no {missing[0]}", where=str(companion.root))
    assert companion.tokenizer is not None, "a checkpoint with a text encoder has a tokenizer"
    return replace(
        denoisers,
        components={
            "text_encoder": shared["text_encoder"],
            **denoisers.components,
            "vae_decoder": shared["vae_decoder"],
        },
        text_length=companion.text_length,
        tokenizer=f"{COMPANION}{companion.tokenizer}",
        files=(*denoisers.files, *(f"{COMPANION}{name}" for name in companion.files)),
        doubts=(*denoisers.doubts, *companion.doubts),
        end_mark=companion.end_mark,
        companion=companion,
    )


def _renamed(component: Component) -> Component:
    """A component whose files are called as the checkpoint of both calls them."""
    twin = component.embedding_twin
    return replace(
        component,
        folder=f"{COMPANION}{component.folder}",
        weights={name: replace(weight, file=f"{COMPANION}{weight.file}") for name, weight in component.weights.items()},
        embedding_twin=twin and replace(twin, file=f"{COMPANION}{twin.file}"),
    )
