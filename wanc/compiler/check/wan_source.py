"""A Wan checkpoint as diffusers and transformers execute it, component by component."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from wanc.compiler.check.origin import MOST_EXECUTED_BYTES, Origin
from wanc.compiler.stages.stage import Files
from wanc.models.graph import concrete
from wanc.runtime.dimensions import split_dimension
from wanc.runtime.noise import initial_noise

if TYPE_CHECKING:
    from wanc.compiler.check.asked import Asked
    from wanc.compiler.check.draws import Kind
    from wanc.compiler.check.trials import Arrays, Source, Trial
    from wanc.models.wan.checkpoint import Checkpoint
    from wanc.models.wan.untouched import Chunk, UntouchedComponent

Array = np.ndarray[Any, Any]

OTHER_TIMESTEPS: Mapping[Kind, float] = {"noise": 37.0, "edges": 999.0}
"""At which an expert is executed besides the example's, by the kind of its other inputs."""
CACHED_FRAMES = 2
"""That a causal convolution of the decoder keeps."""
LATENT_FRAMES = 3
"""Of a video that is decoded: the first, one behind it, and one behind such a one."""


@dataclass(frozen=True)
class WanOrigin(Origin):
    """The checkpoint's files: nothing of what the export made of them is read."""

    name: ClassVar[str] = "wan"
    tools: ClassVar[tuple[str, ...]] = ("torch", "diffusers", "transformers", "numpy")
    has_sizes: ClassVar[bool] = False

    components: tuple[str, ...]

    def open(self, inputs: Mapping[str, Files], scratch: Path) -> Source:
        from wanc.models.wan.checkpoint import open_located
        from wanc.runtime.golden import FOLDER, INPUTS
        from wanc.runtime.safetensors import SafetensorsFile

        del scratch
        golden = SafetensorsFile(inputs["engines"][f"{FOLDER}/{INPUTS}"])
        return WanSource(open_located(inputs["source"], self.components), golden)


class WanSource:
    """`golden` are the inputs of the golden record. On one thread, so that every machine agrees."""

    against = "diffusers and transformers, eager"

    def __init__(self, checkpoint: Checkpoint, golden: Mapping[str, Array]) -> None:
        import torch

        torch.set_num_threads(1)
        self._checkpoint, self._golden = checkpoint, golden
        self._untouched = cache(self._open)

    def trials(self, component: str, graph: str, asked: Asked) -> Iterator[Trial]:
        """As `Source.trials`."""
        if component == "vae_decoder":
            return self._decoded(component, graph, asked)
        return self._executed(component, asked)

    def _executed(self, component: str, asked: Asked) -> Iterator[Trial]:
        """An expert or the text encoder: on the golden inputs, and if that is cheap at other sizes and at edges."""
        from wanc.compiler.check.draws import draw, other_sizes
        from wanc.compiler.check.moved import moved
        from wanc.compiler.check.trials import Trial

        def trial(kind: Kind, sizes: Mapping[str, int], inputs: Arrays) -> Trial:
            untouched, off = self._untouched(component), partial(self._untouched, component, is_moved=True)
            return Trial(kind, sizes, inputs, untouched.run(inputs), lambda: off().run(moved(inputs)))

        golden = self._golden_inputs(component, asked)
        yield trial("noise", _sizes(asked, golden), golden)
        weights = self._checkpoint.components[component].weights.values()
        if sum(4 * prod(weight.shape) for weight in weights) > MOST_EXECUTED_BYTES:
            return
        for kind, timestep in OTHER_TIMESTEPS.items():
            sizes = next(other_sizes(asked)) if kind == "noise" else asked.example
            yield trial(kind, sizes, draw(replace(asked, values=dict.fromkeys(asked.values, timestep)), sizes, kind))

    def _decoded(self, component: str, graph: str, asked: Asked) -> Iterator[Trial]:
        """The decoder: its graph `first` makes the first latent frame's video, and `steady` that of each behind it."""
        from wanc.compiler.check.trials import Trial

        for sizes in (asked.example, {name: size - 1 for name, size in asked.example.items()}):
            latents = _latents(asked, sizes)
            chunks = self._untouched(component).decode(latents)
            for index in [0] if graph == "first" else range(1, LATENT_FRAMES):
                before = _kept("cache", chunks[index - 1], asked, sizes) if index else {}
                inputs = {"latent": latents[:, :, index : index + 1], **before}

                off = partial(self._decoded_moved, component, asked, sizes, index)
                yield Trial("noise", sizes, inputs, _given(chunks[index], asked, sizes), off)

    def _decoded_moved(self, component: str, asked: Asked, sizes: Mapping[str, int], index: int) -> Arrays:
        from wanc.compiler.check.moved import moved

        latents = moved({"latents": _latents(asked, sizes)})["latents"]
        return _given(self._untouched(component, is_moved=True).decode(latents)[index], asked, sizes)

    def _open(self, component: str, *, is_moved: bool = False) -> UntouchedComponent:
        from wanc.compiler.check.moved import moved
        from wanc.models.wan.untouched import UntouchedComponent

        def change(name: str, values: Array) -> Array:
            return moved({name: values})[name]

        return UntouchedComponent(self._checkpoint, component, change if is_moved else None)

    def _golden_inputs(self, component: str, asked: Asked) -> dict[str, Array]:
        """Those of the whole graph: each goes to one of the parts that it was cut into."""
        found: dict[str, Array] = {}
        for name, array in self._golden.items():
            of, _, value = name.partition("/")
            _, _, value = value.partition("/")
            if of == component and value in {entry.name for entry in asked.inputs}:
                found[value] = array
        return found


def _latents(asked: Asked, sizes: Mapping[str, int]) -> Array:
    """Noise for a whole video, float32 [1, channels, latent frames, height, width]."""
    (latent,) = [value for value in asked.inputs if value.name == "latent"]
    batch, channels, _, height, width = concrete(latent.shape, sizes)
    return initial_noise((batch, channels, LATENT_FRAMES, height, width), seed=0)


def _given(chunk: Chunk, asked: Asked, sizes: Mapping[str, int]) -> dict[str, Array]:
    return {"frames": chunk.frames, **_kept("next", chunk, asked, sizes)}


def _kept(prefix: str, chunk: Chunk, asked: Asked, sizes: Mapping[str, int]) -> dict[str, Array]:
    """A chunk's caches as the graphs have them: of two frames each, where there are fewer with zeros in front.

    That is what a causal convolution is padded with where nothing comes before.
    """
    states = {output.name: concrete(output.shape, sizes) for output in asked.outputs if output.state is not None}
    kept: dict[str, Array] = {}
    for number, stored in enumerate(chunk.caches):
        shape = states.get(f"next_{number}")
        if stored is None and shape is not None:
            kept[f"{prefix}_{number}"] = np.zeros(shape, np.float32)
        elif stored is not None:
            missing = CACHED_FRAMES - stored.shape[2]
            kept[f"{prefix}_{number}"] = np.pad(stored, [(0, 0), (0, 0), (missing, 0), (0, 0), (0, 0)])
    return kept


def _sizes(asked: Asked, inputs: Arrays) -> dict[str, int]:
    """What the symbolic sizes of a graph are for these inputs."""
    sizes: dict[str, int] = {}
    for value in asked.inputs:
        for size, dimension in zip(inputs[value.name].shape, value.shape, strict=True):
            factor, name = split_dimension(dimension)
            if name:
                sizes[name] = size // factor
    return sizes
