"""How many videos of a causal model find room at once on the devices of a plan, and what each of them keeps there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wanc.compiler.planner.costs import VideoCosts
from wanc.compiler.planner.placed import PlannedDevice
from wanc.compiler.planner.plan import Plan


@dataclass(frozen=True)
class Sessions:
    """`bytes_per_session` are those that one video keeps on each device, by its name: of the blocks that are there, for
    the guidance branches that pass through it. `fit_by_device` is how many videos have room there at once, and `fit`
    how many on all of them: of the devices of a copy the tightest decides. Beside each other they take nothing else.
    """

    bytes_per_session: Mapping[str, int]
    fit_by_device: Mapping[str, int]
    fit: int


def sessions_of(plan: Plan, costs: VideoCosts) -> Sessions:
    """Some videos are in the plan's memory already: those in flight."""
    lanes = len({device.lane for device in plan.devices})
    kept = {device.name: _kept(device, costs, lanes) for device in plan.devices}
    holding = [device for device in plan.devices if kept[device.name]]
    planned = -(-plan.requests // plan.replicas)
    fits = {
        device.name: planned + (device.memory - max(device.peak_bytes.values())) // kept[device.name]
        for device in holding
    }
    copies = {device.replica for device in holding}
    tightest = [min(fits[device.name] for device in holding if device.replica == copy) for copy in copies]
    return Sessions({name: kept[name] for name in fits}, fits, sum(tightest))


def _kept(device: PlannedDevice, costs: VideoCosts, lanes: int) -> int:
    """Bytes of one video; where branches have `lanes` of their own, a device has the past of one alone."""
    experts = {expert.name: expert for expert in costs.experts}
    return sum(
        sum(part.kept for part in expert.parts[segment.first : segment.stop]) * max(1, expert.branches // lanes)
        for segment in device.segments
        if (expert := experts.get(segment.component)) is not None
    )
