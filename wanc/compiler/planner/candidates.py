"""The ways to spread a model over a cluster that are compared: all combinations of what can be chosen.

Copies of everything, branches on one chain of devices or on two, what the experts share, and how groups are formed:
single devices (a pipeline), all devices of a machine (Ulysses), or groups between. Of each combination the search gives
the best cuts, once for the least bottleneck and once for the least sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from wanc.compiler.planner.cluster import Cluster
from wanc.compiler.planner.costs import VideoCosts
from wanc.compiler.planner.lane import Lane, LaneSearch
from wanc.compiler.planner.options import Branches, PlanOptions, ulysses_refusal
from wanc.compiler.planner.row import Experts, Row, row_of
from wanc.compiler.planner.search import Objective, Place

Style = Literal["single", "pipeline", "ulysses", "both"]
Grouping = frozenset[Place]
OBJECTIVES: tuple[Objective, ...] = ("bottleneck", "sum")


@dataclass(frozen=True)
class Setting:
    """What is chosen before cuts are searched: the equal shares of the cluster, one for each replica, and the rest.

    `chains` are the clusters of the first share's lanes. `on_host` says that the host has the text encoder.
    """

    shares: tuple[Cluster, ...]
    chains: tuple[Cluster, ...]
    experts: Experts
    on_host: bool

    @property
    def branches(self) -> Branches:
        """Whether guidance branches have lanes of their own."""
        return "parallel" if len(self.chains) > 1 else "serial"

    def rows(self, costs: VideoCosts, options: PlanOptions) -> tuple[Row, ...]:
        """One for each lane. The first lane also encodes and decodes. Memory is for the fullest replica."""
        requests = -(-options.in_flight // len(self.shares))
        branches = costs.experts[0].branches // len(self.chains)
        return tuple(
            row_of(costs, self.experts, branches, requests, encodes=first and not self.on_host, decodes=first)
            for first in (index == 0 for index in range(len(self.chains)))
        )


@dataclass(frozen=True)
class Candidate:
    """A setting with the lanes of its first share; the other shares are equal."""

    setting: Setting
    lanes: tuple[Lane, ...]

    @property
    def style(self) -> Style:
        """What it is made of: a pipeline of single devices, one group a lane, or a pipeline of groups."""
        groups = any(cut.place.ranks > 1 for lane in self.lanes for cut in lane.cuts)
        chained = any(len(lane.cuts) > 1 for lane in self.lanes)
        if groups:
            return "both" if chained else "ulysses"
        return "pipeline" if chained else "single"


def settings(
    costs: VideoCosts, cluster: Cluster, options: PlanOptions, modes: Iterable[Experts], *, on_host: bool = False
) -> Iterator[Setting]:
    """All that the options leave open, the simplest first."""
    for shares in cluster.shares():
        if len(shares) not in (range(1, options.in_flight + 1) if options.replicas is None else (options.replicas,)):
            continue
        for chains in _chains(shares[0], costs, options):
            for experts in modes:
                yield Setting(shares, chains, experts, on_host)


def attempts(costs: VideoCosts, cluster: Cluster, options: PlanOptions) -> Iterator[list[Setting]]:
    """Settings to try, those that are only for where nothing before them fits behind the others.

    The text encoder goes to the host for want of memory alone.
    """
    together: list[Experts] = (
        ["resident", "stream"] if len(costs.experts) == 1 else ["resident", "apart", "swap", "stream"]
    )
    modes: list[Experts] = together if options.experts is None else [options.experts]
    offloads = options.offload_text_encoder and cluster.host is not None
    for on_host in (False, True) if offloads else (False,):
        yield list(settings(costs, cluster, options, modes, on_host=on_host))


def fitting(costs: VideoCosts, cluster: Cluster, options: PlanOptions) -> list[Candidate]:
    """The candidates of the first attempt in which there are any; none where nothing fits."""
    for attempt in attempts(costs, cluster, options):
        found = [candidate for setting in attempt for candidate in candidates(costs, setting, options)]
        if found:
            return found
    return []


def _chains(share: Cluster, costs: VideoCosts, options: PlanOptions) -> Iterator[tuple[Cluster, ...]]:
    if options.branches != "parallel":
        yield (share,)
    if options.branches != "serial" and costs.experts[0].branches == 2:
        yield from (halves for halves in share.shares() if len(halves) == 2)


def groupings(cluster: Cluster, costs: VideoCosts, options: PlanOptions) -> list[Grouping]:
    """The kinds of groups to search among: equal ones of every size that all machines can be divided into, and any."""
    sizes = {
        ranks: all(pool.count % ranks == 0 for pool in cluster.pools)
        for ranks in range(1, max(pool.count for pool in cluster.pools) + 1)
        if not ulysses_refusal(ranks, costs.experts[0])
    }
    pools = range(len(cluster.pools))
    if options.ulysses is not None:
        sizes = {ranks: divides for ranks, divides in sizes.items() if ranks == options.ulysses}
    equal = [frozenset(Place(pool, ranks) for pool in pools) for ranks, divides in sizes.items() if divides]
    mixed = frozenset(Place(pool, ranks) for pool, ranks in product(pools, sizes) if ranks <= cluster.pools[pool].count)
    return list(dict.fromkeys([*equal, mixed] if mixed else equal))


def candidates(
    costs: VideoCosts, setting: Setting, options: PlanOptions, *, ignore_memory: bool = False
) -> Iterator[Candidate]:
    """The best lanes of a setting for every grouping and both objectives, none of them twice."""
    searches = _searches(costs, setting, options, ignore_memory=ignore_memory)
    found: set[tuple[object, ...]] = set()
    for grouping, objective in product(groupings(setting.chains[0], costs, options), OBJECTIVES):
        lanes = [search.fastest(grouping, objective) for search in searches]
        whole = tuple(lane for lane in lanes if lane is not None)
        cuts = tuple(lane.cuts for lane in whole)
        if len(whole) < len(lanes) or cuts in found or not _has_stages(whole, options):
            continue
        found.add(cuts)
        yield Candidate(setting, whole)


def least_missing(costs: VideoCosts, setting: Setting, options: PlanOptions) -> list[Lane]:
    """The lanes of a setting that lack least memory, over all groupings; none where devices cannot all be used."""
    searches = _searches(costs, setting, options, ignore_memory=False)
    found: list[Lane] = []
    for grouping in groupings(setting.chains[0], costs, options):
        found.extend(lane for search in searches if (lane := search.least_missing(grouping)))
    return found


def _searches(costs: VideoCosts, setting: Setting, options: PlanOptions, *, ignore_memory: bool) -> list[LaneSearch]:
    return [
        LaneSearch(chain, row, allow_idle=options.allow_idle, ignore_memory=ignore_memory)
        for chain, row in zip(setting.chains, setting.rows(costs, options), strict=True)
    ]


def _has_stages(lanes: tuple[Lane, ...], options: PlanOptions) -> bool:
    return options.stages is None or all(len(lane.cuts) == options.stages for lane in lanes)
