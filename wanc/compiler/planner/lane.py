"""A lane: a row of parts, cut into segments on the groups of a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from wanc.compiler.planner.cluster import Cluster
from wanc.compiler.planner.memory import Footprint
from wanc.compiler.planner.row import Row
from wanc.compiler.planner.search import Cut, Objective, Place, SearchProblem, Seconds, search
from wanc.compiler.planner.segment_times import SegmentTimes, transfer_seconds

# Ranks between the first and the last hold no whole component, and so no more than these.
ENDS: tuple[Literal[0, -1], ...] = (0, -1)


@dataclass(frozen=True)
class Lane:
    """Segments in their order, each on a group of devices of the cluster."""

    cluster: Cluster
    row: Row
    cuts: tuple[Cut, ...]

    @cached_property
    def devices(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of each segment's devices: the next free ones of its pool."""
        free = [pool.first for pool in self.cluster.pools]
        groups: list[tuple[int, ...]] = []
        for cut in self.cuts:
            first = free[cut.place.pool]
            free[cut.place.pool] += cut.place.ranks
            groups.append(tuple(range(first, first + cut.place.ranks)))
        return tuple(groups)

    @cached_property
    def times(self) -> tuple[SegmentTimes, ...]:
        """Of each segment's group."""
        pools = self.cluster.pools
        return tuple(
            SegmentTimes(self.row, pools[cut.place.pool].device, cut.place.ranks, pools[cut.place.pool].link)
            for cut in self.cuts
        )

    def footprints(self) -> Iterator[tuple[int, Cut, Footprint]]:
        """Of each device, by its number, with the segment that it has."""
        for cut, group in zip(self.cuts, self.devices, strict=True):
            for device in group:
                yield device, cut, Footprint(self.row, len(group), -1 if device == group[-1] else 0)


class LaneSearch:
    """The lanes of a row on a cluster: the fastest ones that fit, or the one that fits least badly."""

    def __init__(self, cluster: Cluster, row: Row, *, allow_idle: bool = False, ignore_memory: bool = False) -> None:
        self._cluster = cluster
        self._row = row
        self._allow_idle = allow_idle
        self._ignore_memory = ignore_memory
        self._seconds: dict[Place, Seconds] = {}
        self._missing: dict[Place, Seconds] = {}

    def fastest(self, places: Iterable[Place], objective: Objective) -> Lane | None:
        """The best one whose groups are of these kinds; None where nothing fits."""
        chosen = tuple(sorted(places))
        seconds = {place: self._allowed_seconds(place) for place in chosen}
        transfers = {(one, other): self._transfers(one, other) for one in chosen for other in chosen}
        solution = search(SearchProblem(self._counts, seconds, transfers, self._allow_idle), objective)
        return Lane(self._cluster, self._row, solution.cuts) if solution else None

    def least_missing(self, places: Iterable[Place]) -> Lane | None:
        """The one on which the device that lacks most lacks least; None where the devices cannot all be used."""
        chosen = tuple(sorted(places))
        missing = {place: self._missing_bytes(place) for place in chosen}
        nothing = np.zeros(len(self._row.parts) + 1)
        transfers = {(one, other): nothing for one in chosen for other in chosen}
        solution = search(SearchProblem(self._counts, missing, transfers, self._allow_idle), "bottleneck")
        return Lane(self._cluster, self._row, solution.cuts) if solution else None

    @property
    def _counts(self) -> tuple[int, ...]:
        return tuple(pool.count for pool in self._cluster.pools)

    def _transfers(self, one: Place, other: Place) -> Seconds:
        link = self._cluster.link(one.pool, other.pool)
        return transfer_seconds(self._row, link, min(one.ranks, other.ranks))

    def _allowed_seconds(self, place: Place) -> Seconds:
        """Seconds of all segments, inf for those that do not fit or that have to be cut."""
        if place not in self._seconds:
            pool = self._cluster.pools[place.pool]
            seconds = SegmentTimes(self._row, pool.device, place.ranks, pool.link).videos
            missing = self._missing_bytes(place)
            fits = np.isfinite(missing) if self._ignore_memory else missing <= 0
            self._seconds[place] = np.where(fits, seconds, np.inf)
        return self._seconds[place]

    def _missing_bytes(self, place: Place) -> Seconds:
        """Bytes that a device of the group lacks for each segment, 0 where it has enough, inf where it must be cut."""
        if place not in self._missing:
            peaks = [Footprint(self._row, place.ranks, end).peaks for end in ENDS[: place.ranks]]
            memory = self._cluster.pools[place.pool].device.memory
            missing = np.maximum(np.maximum.reduce(peaks) - memory, 0).astype(np.float64)
            missing[np.tri(len(missing), dtype=bool)] = np.inf
            for cut in self._row.must_cut:
                missing[:cut, cut + 1 :] = np.inf
            self._missing[place] = missing
        return self._missing[place]
