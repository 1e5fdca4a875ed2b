"""Clusters for tests."""

from __future__ import annotations

from wanc.compiler.planner.cluster import Cluster, Pool
from wanc.compiler.planner.known_devices import DEVICES
from wanc.compiler.planner.links import LINKS, link_of


def pool(kind: str, count: int, link: str = "nvlink") -> Pool:
    return Pool(DEVICES[kind], count, link_of(link, DEVICES[kind]))


def cluster(kind: str, count: int, link: str = "nvlink") -> Cluster:
    """So many equal cards in one machine, with its processor beside them."""
    return Cluster.of([pool(kind, count, link)], host=DEVICES["cpu"])


def machines(*pools: Pool, between: str = "ethernet") -> Cluster:
    return Cluster.of(pools, LINKS[between], DEVICES["cpu"])
