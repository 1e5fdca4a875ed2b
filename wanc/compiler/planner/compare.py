"""The same devices over every kind of link, as a pipeline, by Ulysses, and as both: what each would give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from wanc.compiler.planner.candidates import Candidate, Style, candidates, fitting, settings
from wanc.compiler.planner.cluster import Cluster
from wanc.compiler.planner.costs import VideoCosts
from wanc.compiler.planner.evaluate import best, latency, throughput
from wanc.compiler.planner.links import link_of
from wanc.compiler.planner.options import PlanOptions

STYLES: tuple[Style, ...] = ("pipeline", "ulysses", "both")


@dataclass(frozen=True)
class Alternative:
    """One copy on all devices, in one style over one kind of link: seconds of a video alone, and videos/s when busy.

    `fits` is false where it was only reckoned with, as if devices had the memory.
    """

    link: str
    style: Style
    video_seconds: float
    throughput: float
    fits: bool


def alternatives(costs: VideoCosts, cluster: Cluster, options: PlanOptions) -> Iterator[Alternative]:
    """The best of every style that is possible, over every kind of link that all devices have."""
    free = replace(options, replicas=1, stages=None, ulysses=None)
    for link in _kinds(cluster):
        other = replace(cluster, pools=tuple(replace(pool, link=link_of(link, pool.device)) for pool in cluster.pools))
        found = fitting(costs, other, free)
        without_room = found or [
            candidate
            for setting in settings(costs, other, free, ["resident"])
            for candidate in candidates(costs, setting, free, ignore_memory=True)
        ]
        for style in STYLES:
            of_style = [candidate for candidate in without_room if candidate.style == style]
            if of_style:
                yield _alternative(costs, of_style, free, link, fits=bool(found))


def _alternative(
    costs: VideoCosts, found: list[Candidate], options: PlanOptions, link: str, *, fits: bool
) -> Alternative:
    chosen, flow, _ = best(costs, found, options.objective, options.in_flight)
    return Alternative(link, chosen.style, latency(flow), throughput(flow, options.in_flight, 1), fits)


def _kinds(cluster: Cluster) -> list[str]:
    nvlink = ["nvlink"] if all(pool.device.nvlink for pool in cluster.pools) else []

    return [*nvlink, "pcie", "infiniband", "ethernet"]
