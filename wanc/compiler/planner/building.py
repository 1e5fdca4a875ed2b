"""What building engines will take: memory of the builder, room on disk, and seconds.

Linear in the bytes of a segment's weights, as measured with TensorRT-RTX 1.7.1.116 on segments of one to five blocks
of Wan2.2-T2V-A14B on two cores: the builder holds weights twice and a bit, and half a gigabyte of its own. What
calibration takes is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from wanc.compiler.planner.costs import ComponentCosts, VideoCosts
from wanc.compiler.planner.plan import Plan
from wanc.runtime.model import TEXT_ENCODER

GIB = 2**30
BUILDER = round(0.6 * GIB)
HELD = 2.2
HELD_OF_TEXT_ENCODER = 2.5
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


class _Built(NamedTuple):
    component: str
    weights: int


def building(costs: VideoCosts, plan: Plan) -> Building:
    """For the engines of one plan; segments that several devices have are built once."""
    components = {entry.name: entry for entry in (costs.text_encoder, *costs.experts, costs.decoder)}
    segments = {segment for device in plan.devices for segment in device.segments}
    built = [
        _Built(segment.component, _weights(components[segment.component], segment.first, segment.stop))
        for segment in segments
    ]
    total = sum(entry.weights for entry in built)
    return Building(
        max(map(builder_bytes, built), default=0),
        total + max((entry.weights for entry in built), default=0),
        sum(SECONDS_A_SEGMENT + SECONDS_A_GIB * entry.weights / GIB for entry in built),
    )


def builder_bytes(built: _Built) -> int:
    """What building a segment takes at its peak."""
    held = HELD_OF_TEXT_ENCODER if built.component == TEXT_ENCODER else HELD
    return BUILDER + round(held * built.weights)


def _weights(component: ComponentCosts, first: int, stop: int) -> int:
    return sum(part.weights for part in component.parts[first:stop])
