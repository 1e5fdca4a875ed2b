"""What a model on one processor takes of a budget of memory, phase by phase, and into which pieces it is cut for that.

A phase's graphs are executed segment by segment. Whatever the budget, one segment has to be opened beside the values
that are alive; the more there is, the more of them stay open until they are used again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from wanc.compiler.planner.building import segment_weights
from wanc.compiler.planner.costs import ComponentCosts, Kernel, VideoCosts
from wanc.compiler.planner.count import BYTES
from wanc.runtime.budget import PhaseMemory
from wanc.words import EngineKind

SHARE = 8
"""Into so many segments is cut what a budget has room for, so that little of it is left over, and the next one can be
opened while one is executed."""


@dataclass(frozen=True)
class Resident:
    """One size of video within a budget, in bytes, on a processor with this kind of engine."""

    shape: str
    budget: int
    phases: Mapping[str, PhaseMemory]

    @property
    def least(self) -> int:
        """The smallest budget within which the video can be made."""
        return max(phase.least for phase in self.phases.values())

    @property
    def whole(self) -> int:
        """The budget from which nothing is closed before a request ends: all weights, and the values of one phase."""
        return sum(phase.weights for phase in self.phases.values()) + max(
            phase.values for phase in self.phases.values()
        )

    def as_json(self) -> dict[str, Any]:
        phases = {name: phase.as_json(self.budget) for name, phase in self.phases.items()}
        return {"budget": self.budget, "least": self.least, "whole": self.whole, "phases": phases}


OPENVINO_KERNELS = 12 * 2**20
"""Beside the weights of a block: generated code, and what it was made of, of all its graphs."""
CACHED = 2**19
"""Bytes of a head's keys and values that OpenVINO does not lay out anew, in memory that it keeps."""
DECODER_GRAPHS = 2
"""The first latent frame has a graph of its own, and with it all weights of the decoder."""
Bounds = Mapping[str, list[tuple[int, int]]]
"""Of each component the blocks of its segments, first … stop - 1."""


@dataclass(frozen=True)
class VideoMemory:
    """What a size of video costs, and the bytes of values that decoding its pictures takes, whole or in tiles."""

    costs: VideoCosts
    decoding: int


def segment_bounds(videos: Sequence[VideoMemory], budget: int, kind: EngineKind) -> Bounds:
    """As few segments of equal numbers of blocks as leave a budget enough to move in; whole components, if all fit."""
    sizes, components = list(videos), videos[0].costs.components
    whole = {component.name: [(0, len(component.parts))] for component in components}
    if all(resident(one, whole, budget, kind).whole <= budget for one in sizes):
        return whole
    room = budget - max(phase.values for one in sizes for phase in resident(one, whole, budget, kind).phases.values())
    return {component.name: _bounds(component, room // SHARE, kind) for component in components}


def _bounds(component: ComponentCosts, most_bytes: int, kind: EngineKind) -> list[tuple[int, int]]:
    count = len(component.parts)
    for pieces in range(1, count + 1):
        ends = [count * index // pieces for index in range(pieces + 1)]
        bounds = list(pairwise(ends))
        if all(opening_bytes(component, *pair, kind) <= most_bytes for pair in bounds):
            return bounds
    return [(index, index + 1) for index in range(count)]


def resident(video: VideoMemory, bounds: Bounds, budget: int, kind: EngineKind) -> Resident:
    """The phases of one size of video, cut at these bounds."""
    costs = video.costs

    def phase(components: Sequence[ComponentCosts], values: int) -> PhaseMemory:
        segments = [(component, *pair) for component in components for pair in bounds[component.name]]
        weights = sum(
            opened_bytes(*segment, kind) * (DECODER_GRAPHS if segment[0] is costs.decoder else 1)
            for segment in segments
        )
        return PhaseMemory(values, weights, max(opening_bytes(*segment, kind) for segment in segments))

    text = phase([costs.text_encoder], _activation([costs.text_encoder]))
    kept = [sum(part.kept for part in expert.parts) * expert.branches for expert in costs.experts]
    if costs.experts[0].looks_back:
        # Pictures are decoded while later chunks are made.
        left = max(expert.left * expert.branches for expert in costs.experts)
        values = sum(kept) + left + _activation(costs.experts) + video.decoding
        phases = {"text": text, "video": phase([*costs.experts, costs.decoder], values)}
    else:
        denoise = phase(costs.experts, max(kept) + _activation(costs.experts))
        phases = {"text": text, "denoise": denoise, "decode": phase([costs.decoder], video.decoding)}
    return Resident(costs.shape, budget, phases)


def _activation(components: Sequence[ComponentCosts]) -> int:
    return max(part.activation for component in components for part in component.parts)


def opened_bytes(component: ComponentCosts, first: int, stop: int, kind: EngineKind) -> int:
    """What open engines of some blocks take: their weights, and with OpenVINO what it generates for them and keeps."""
    weights = segment_weights(component, first, stop)
    if kind != "openvino":
        return weights
    return weights + OPENVINO_KERNELS * (stop - first) + _kept_bytes(component, first, stop)


def _kept_bytes(component: ComponentCosts, first: int, stop: int) -> int:
    """The keys and values of the largest attention, if a head has more of them than a cache takes."""
    kernels = (kernel for part in component.parts[first:stop] for kernel in part.kernels)
    sizes = (kernel.moved // 2 for kernel in kernels if kernel.kind == "attention")
    return max((size for size in sizes if size > CACHED * (component.heads or 1)), default=0)


def opening_bytes(component: ComponentCosts, first: int, stop: int, kind: EngineKind) -> int:
    """What opening the engines of some blocks takes: their weights, and what is there of their files meanwhile.

    onnxruntime packs one weight after the other, OpenVINO reads a file in float32 first.
    """
    kernels = [kernel for part in component.parts[first:stop] for kernel in part.kernels]
    opened = opened_bytes(component, first, stop, kind)
    if kind == "openvino":
        return opened + max(segment_weights(component, first, stop), sum(map(_in_file, kernels)))
    return opened + max((kernel.weights for kernel in kernels), default=0)


def _in_file(kernel: Kernel) -> int:
    """Codes are in the file as they are."""
    size = BYTES[kernel.format]
    return kernel.weights if size == 1 else kernel.weights * BYTES["fp32"] // size
