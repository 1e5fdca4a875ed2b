"""The modules of diffusers and transformers themselves, on a checkpoint's weights: what a build is held against.

Nothing of the export is used here. The classes are the libraries' own; where the checkpoint is in their layout, they
read its configurations, and names of weights are those in the files' headers. Weights are in memory only while the
module that owns them is executed (`streamed.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from wanc.errors import CheckpointError
from wanc.models.wan.stored import Checkpoint, Component, file_weights
from wanc.models.wan.streamed import Change, stream
from wanc.models.wan.untouched_causal import run_chunk
from wanc.models.wan.untouched_sequence import run_behind
from wanc.models.weights import Weight
from wanc.quiet import quiet
from wanc.runtime.kvcache import BIAS, KeyValueWindow

Array = np.ndarray[Any, Any]
Config = Mapping[str, Any]
CONVERTERS: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "denoiser_high": convert_wan_transformer_to_diffusers,
    "denoiser_low": convert_wan_transformer_to_diffusers,
    "vae_decoder": convert_wan_vae_to_diffusers,
}
"""diffusers' own, from the original code's names to its own. Of the text encoder's there is none."""


@dataclass(frozen=True)
class Chunk:
    """What the decoder gives for one latent frame: frames float32 [1, 3, 1 or more, height, width], cut off nowhere.

    `caches` is what its causal convolutions keep behind it, in the order of a forward pass: float32
    [1, channels, 1 or 2, height, width] each, and None where a doubling of the frames has not begun yet.
    """

    frames: Array
    caches: Sequence[Array | None]


class UntouchedComponent:
    """One component of a checkpoint, executed eagerly in float32; `change` is applied to every weight that is read.

    Raises CheckpointError where a library does not take the component's configuration, and when it is executed where a
    weight is missing.
    """

    def __init__(self, checkpoint: Checkpoint, name: str, change: Change | None = None) -> None:
        checkpoint = checkpoint.owner(name)
        component = checkpoint.components[name]
        where = str(checkpoint.root / component.folder)
        try:
            with quiet("diffusers", "transformers"), torch.device("meta"):
                module = _module(name, _config(checkpoint, component))
        except Exception as error:  # whatever a library's constructor raises at sizes that do not go together
            raise CheckpointError(
                f"the library's own module does not take the configuration of {name}", where=where
            ) from error
        self.module = module.eval().requires_grad_(False)
        stream(self.module, _weights(checkpoint, name), checkpoint.root, where=where, change=change)

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What an expert or the text encoder gives, float32, under the names that their graphs have for it.

        - An expert: latents [1, channels, frames, height, width], timestep [1], text [1, tokens, width] → velocity.
        - A causal expert: as `run_chunk` says.
        - The text encoder: embeddings [1, tokens, width], mask int64 [1, tokens] → hidden.
        """
        module = cast(Any, self.module)
        if BIAS in inputs:
            return run_chunk(module, inputs)
        given = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
        if isinstance(module, UMT5EncoderModel):
            states = module(inputs_embeds=given["embeddings"], attention_mask=given["mask"])
            return {"hidden": states.last_hidden_state.numpy()}
        (velocity,) = module(given["latents"], given["timestep"], given["text"], return_dict=False)
        return {"velocity": velocity.numpy()}

    @torch.no_grad()
    def run_behind(self, inputs: Mapping[str, Array], clean: Sequence[Array], window: KeyValueWindow) -> Array:
        """The velocity of a causal expert on a chunk, with all chunks before it: see `untouched_sequence`."""
        return run_behind(cast(Any, self.module), inputs, clean, window)

    @torch.no_grad()
    def decode(self, latents: Array) -> list[Chunk]:
        """The video of latents [1, channels, frames, height, width], as the decoder makes it, latent frame by frame."""
        chunks: list[Array] = []
        caches: list[list[Array | None]] = []

        def note(_part: object, _inputs: object, kept: Mapping[str, Any], frames: torch.Tensor) -> None:
            chunks.append(frames.numpy().copy())
            slots = [slot for slot in kept["feat_cache"] if slot is not None]
            # A text stands where a doubling has met one frame.
            caches.append([slot.numpy().copy() if isinstance(slot, torch.Tensor) else None for slot in slots])

        module = cast(Any, self.module)
        watch = module.decoder.register_forward_hook(note, with_kwargs=True)
        try:
            module.decode(torch.from_numpy(latents.copy()))
        finally:
            watch.remove()
        return [Chunk(frames, kept) for frames, kept in zip(chunks, caches, strict=True)]


def _module(component: str, config: Config) -> torch.nn.Module:
    """A component's module without weights, made under the device `meta`."""
    if component == "text_encoder":
        return UMT5EncoderModel(UMT5Config.from_dict(dict(config)))
    if component == "vae_decoder":
        return cast(torch.nn.Module, AutoencoderKLWan.from_config(dict(config)))
    module = cast(Any, WanTransformer3DModel.from_config(dict(config)))
    rope = module.rope
    with torch.device("cpu"):  # its tables are in no file
        module.rope = WanRotaryPosEmbed(rope.attention_head_dim, rope.patch_size, rope.max_seq_len)
    return module


def _config(checkpoint: Checkpoint, component: Component) -> Config:
    """The configuration as the library finds it; the original layout has none for it, and ours stands in."""
    if checkpoint.layout == "original":
        return component.config
    return json.loads((checkpoint.root / component.folder / "config.json").read_bytes())


def _weights(checkpoint: Checkpoint, name: str) -> Mapping[str, Weight]:
    """The component's weights by the module's names, found anew: a wrong name in a table of ours must show."""
    component = checkpoint.components[name]
    stored: dict[str, Weight] = {}
    for file in sorted({weight.file for weight in component.weights.values()}):
        stored |= file_weights(checkpoint.root, file)
    if checkpoint.layout == "diffusers":
        return stored
    if name not in CONVERTERS:
        return component.weights
    converted = CONVERTERS[name](dict(stored))
    # The converter of VAEs knows one arrangement only, the published one.
    return converted if component.weights.keys() <= converted.keys() else component.weights
