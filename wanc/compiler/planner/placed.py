"""What lies on each device of a plan, what that needs, and what goes over which link."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wanc.compiler.planner.candidates import Candidate
from wanc.compiler.planner.cluster import Cluster
from wanc.compiler.planner.costs import VideoCosts
from wanc.compiler.planner.devices import Device
from wanc.compiler.planner.lane import Lane
from wanc.compiler.planner.memory import Footprint
from wanc.compiler.planner.row import Phase, row_of
from wanc.compiler.planner.search import Cut


@dataclass(frozen=True)
class PlannedSegment:
    """Parts first … stop - 1 of a component."""

    component: str
    first: int
    stop: int


@dataclass(frozen=True)
class PlannedDevice:
    """A device: its segments, bytes by phase, the share of its time in which it works, and with whom it shares tokens.

    `replica` and `lane` say which copy and which chain of devices it belongs to, `rank` of how many `ranks` it is.
    """

    name: str
    kind: str
    replica: int
    lane: int
    rank: int
    ranks: int
    segments: tuple[PlannedSegment, ...]
    memory: int
    peak_bytes: dict[Phase, int]
    share: float


@dataclass(frozen=True)
class Transfer:
    """Bytes over one kind of link: `activations` between segments, or an `exchange` of ranks, the whole group's."""

    link: str
    what: str
    bytes_per_execution: int
    bytes_per_video: int


def planned_devices(cluster: Cluster, chosen: Candidate, shares: Mapping[int, float]) -> tuple[PlannedDevice, ...]:
    """All devices that have something to do. Replicas are equal, and so are their `shares`, known for the first one."""
    firsts = [dict(_numbers(share, chosen)) for share in chosen.setting.shares]
    found: list[PlannedDevice] = []
    for replica, numbers in enumerate(firsts):
        for index, lane in enumerate(chosen.lanes):
            for number, cut, footprint in lane.footprints():
                actual, group = numbers[number], lane.devices[lane.cuts.index(cut)]
                pool = cluster.pool_of(actual)
                found.append(
                    PlannedDevice(
                        name=cluster.name(actual),
                        kind=pool.device.kind,
                        replica=replica,
                        lane=index,
                        rank=number - group[0],
                        ranks=len(group),
                        segments=tuple(_segments(lane, cut, number, group)),
                        memory=pool.device.memory,
                        peak_bytes=footprint.by_phase(cut.start, cut.stop),
                        share=shares.get(number, 0.0),
                    )
                )
    return tuple(sorted(found, key=lambda device: (device.replica, device.lane, device.name)))


def _numbers(share: Cluster, chosen: Candidate) -> Iterator[tuple[int, int]]:
    """For each device of the first replica the one that has its place in another."""
    for pool, first in zip(share.pools, chosen.setting.shares[0].pools, strict=True):
        yield from zip(
            range(first.first, first.first + first.count), range(pool.first, pool.first + pool.count), strict=True
        )


def _segments(lane: Lane, cut: Cut, number: int, group: tuple[int, ...]) -> Iterator[PlannedSegment]:
    """The parts of a device by component. A whole component is with the first or the last device of its group."""
    here = [part for part in lane.row.parts[cut.start : cut.stop] if part.rank is None or group[part.rank] == number]
    for component in dict.fromkeys(use.component for part in here for use in part.uses):
        parts = [part for part in here if any(use.component == component for use in part.uses)]
        yield PlannedSegment(component, parts[0].index, parts[-1].index + parts[-1].parts)


def transfers(costs: VideoCosts, chosen: Candidate) -> Iterator[Transfer]:
    """What one execution of a denoiser and what one video send, on the first replica."""
    steps = sum(expert.executions for expert in costs.experts)
    for lane in chosen.lanes:
        executions = steps * lane.row.branches
        sent: dict[tuple[str, str], int] = {}
        for cut, following in zip(lane.cuts, lane.cuts[1:], strict=False):
            link = lane.cluster.link(cut.place.pool, following.place.pool)
            last = lane.row.parts[cut.stop - 1]
            sent[link.kind, "activations"] = sent.get((link.kind, "activations"), 0) + last.part.leaves
        for cut in lane.cuts:
            ranks = cut.place.ranks
            exchanged = sum(part.part.exchanged for part in lane.row.parts[cut.start : cut.stop])
            if ranks > 1 and exchanged:
                key = (lane.cluster.pools[cut.place.pool].link.kind, "exchange")
                # Each of `ranks` devices sends (ranks - 1) / ranks² of it.
                sent[key] = sent.get(key, 0) + exchanged * (ranks - 1) // ranks
        for (link, what), size in sent.items():
            yield Transfer(link, what, size, size * executions)


def one_device_fits(costs: VideoCosts, device: Device) -> bool:
    """Whether one device has room for everything, both experts included, with one request in flight."""
    row = row_of(costs, "resident", costs.experts[0].branches, 1, encodes=True, decodes=True)
    return Footprint(row).peak(0, len(row.parts)) <= device.memory
