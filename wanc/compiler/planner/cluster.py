"""The devices of a deployment, and what connects them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from wanc.compiler.planner.devices import Device
from wanc.compiler.planner.links import Link


@dataclass(frozen=True)
class Pool:
    """`count` equal devices, any two of which are connected by `link`: the cards of one machine.

    They are numbered from `first` on, over all pools of a cluster.
    """

    device: Device
    count: int
    link: Link
    first: int = 0


@dataclass(frozen=True)
class Cluster:
    """Pools, and the link `between` devices of different ones, which a cluster of one pool does not have.

    `host` is the device that executes a component which is kept off the others.
    """

    pools: tuple[Pool, ...]
    between: Link | None = None
    host: Device | None = None

    @classmethod
    def of(cls, pools: Sequence[Pool], between: Link | None = None, host: Device | None = None) -> Cluster:
        """A cluster whose devices are numbered in the order of its pools."""
        firsts = [sum(pool.count for pool in pools[:index]) for index in range(len(pools))]
        numbered = (replace(pool, first=first) for pool, first in zip(pools, firsts, strict=True))
        return cls(tuple(numbered), between, host)

    @property
    def count(self) -> int:
        """Of all devices."""
        return sum(pool.count for pool in self.pools)

    def link(self, one: int, other: int) -> Link:
        """Between devices of two pools, which may be one and the same."""
        return self.pools[one].link if one == other or self.between is None else self.between

    def name(self, number: int) -> str:
        """What a device is called: its kind and its number."""
        return f"{self.pool_of(number).device.kind}.{number}"

    def pool_of(self, number: int) -> Pool:
        """The pool of a device."""
        return next(pool for pool in self.pools if pool.first <= number < pool.first + pool.count)

    def shares(self) -> Iterator[tuple[Cluster, ...]]:
        """All ways to divide the cluster into equal ones, the undivided first.

        Every pool is divided by one number. Where all pools are equal, they are first divided among the shares whole.
        """
        equal = all(replace(pool, first=self.pools[0].first) == self.pools[0] for pool in self.pools)
        pools = len(self.pools) if equal else 1
        for apart in (number for number in range(1, pools + 1) if pools % number == 0):
            held = len(self.pools) // apart
            for number in range(1, min(pool.count for pool in self.pools) + 1):
                if all(pool.count % number == 0 for pool in self.pools):
                    yield tuple(
                        replace(self, pools=_share(self.pools[group * held : (group + 1) * held], number, index))
                        for group in range(apart)
                        for index in range(number)
                    )


def _share(pools: Sequence[Pool], number: int, index: int) -> tuple[Pool, ...]:
    """What the share `index` of `number` has of each pool."""
    counts = [pool.count // number for pool in pools]
    return tuple(
        replace(pool, count=count, first=pool.first + index * count) for pool, count in zip(pools, counts, strict=True)
    )
