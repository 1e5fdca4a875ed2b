"""What building engines will take: memory of the builder, room on disk, and seconds.

Linear in the bytes of a segment's weights, as measured with TensorRT-RTX 1.7.1.116 on segments of one to eight blocks
of Wan2.2-T2V-A14B, with distinct random weights (bench/results/engines-a14b.md): the builder holds the weights of an
engine twice and a bit, and half a gigabyte of its own. A denoiser's are in two engines, for a request and for a step,
which are built one after the other; so of both together it is twice. What calibration takes is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

from wanc.compiler.planner.costs import ComponentCosts, VideoCosts
from wanc.compiler.planner.plan import Plan
from wanc.runtime.model import TEXT_ENCODER

GIB = 2**30
BUILDER = round(0.6 * GIB)
HELD = 2.0
HELD_MOST = 2.7
"""Of a text encoder, and of what embeds a timestep, of which one weight is nearly all."""
SECONDS_A_SEGMENT = 3.0
SECONDS_A_GIB = 12.0


@dataclass(frozen=True)
class Building:
    """Predicted: the largest peak of one builder, what lies on disk at the end with the largest segment's lowered
    graph, and seconds of building one segment after the other.
    """

    rss_bytes: int
    disk_bytes: int
    seconds: float


def building(costs: VideoCosts, plan: Plan) -> Building:
    """For the engines of one plan; segments that several devices have are built once."""
    segments = {segment for device in plan.devices for segment in device.segments}
    built = [(component_of(costs, one.component), one.first, one.stop) for one in segments]
    weights = [segment_weights(*one) for one in built]
    return Building(
        max((segment_bytes(*one) for one in built), default=0),
        sum(weights) + max(weights, default=0),
        sum(SECONDS_A_SEGMENT + SECONDS_A_GIB * size / GIB for size in weights),
    )


def component_of(costs: VideoCosts, name: str) -> ComponentCosts:
    """By its name."""
    return next(component for component in costs.components if component.name == name)


def segment_bytes(component: ComponentCosts, first: int, stop: int) -> int:
    """What building the engines of some blocks takes at its peak: they are built one after the other."""
    held = HELD_MOST if component.name == TEXT_ENCODER else HELD
    timed = component.timed if first == 0 else 0
    return BUILDER + round(max(held * segment_weights(component, first, stop), HELD_MOST * timed))


def segment_weights(component: ComponentCosts, first: int, stop: int) -> int:
    """Bytes of the weights of some blocks, as the engine holds them."""
    return sum(part.weights for part in component.parts[first:stop])
