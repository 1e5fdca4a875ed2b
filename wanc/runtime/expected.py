"""What a video will execute, in which order: so that engines can be opened ahead, and the right ones closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .decode import FIRST, STEADY
from .denoise import GRAPH as STEP
from .denoise import Expert
from .encode import COMPONENT as ENCODER
from .encode import GRAPH as ENCODE
from .model import DECODER
from .parts import Parts
from .uses import GraphUse


def encodings(count: int) -> list[GraphUse]:
    """Of so many texts."""
    return [GraphUse(ENCODER, ENCODE)] * count


def steps(
    timesteps: Iterable[float], expert_at: Callable[[float], Expert], parts_of: Callable[[str], Parts]
) -> Iterator[GraphUse]:
    """Of the denoising loop: the graphs that an expert needs before its first step, as far as no table has them."""
    previous = None
    for timestep in timesteps:
        expert = expert_at(timestep)
        component = expert.component
        if component != previous:
            previous, parts = component, parts_of(component)
            yield from (GraphUse(component, graph) for graph in parts.graphs if graph not in (STEP, *parts.tables))
        yield GraphUse(component, STEP, expert.branches)


def chunks(count: int) -> list[GraphUse]:
    """Of a decoder, for so many latent frames."""
    return [GraphUse(DECODER, STEADY if index else FIRST) for index in range(count)]
