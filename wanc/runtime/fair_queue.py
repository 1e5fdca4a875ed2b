"""A queue that is fair to tenants: next is whoever has got the least work done lately.

Who asks for little is served soon, however much others ask for, and those who ask for more than there is share what is
left. What was done is forgotten bit by bit, so that nobody pays for yesterday, nor saves anything up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What may wait: whose it is, the work that it is, in any unit, and how many came before it."""

    @property
    def tenant(self) -> str: ...
    @property
    def cost(self) -> float: ...
    @property
    def number(self) -> int: ...


MEMORY = 20
"""What was done for a tenant counts for about as long as so many requests are taken, of anybody."""
MOST_GONE = 100
"""Tenants of whom something is remembered though nothing of theirs waits: those that were served last."""

Q = TypeVar("Q", bound=Queued)


class FairQueue(Generic[Q]):
    """What waits, by tenant: of each in the order in which it came."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Q]] = {}
        self._done: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def count(self, tenant: str) -> int:
        """How many wait of one tenant."""
        return len(self._waiting.get(tenant, ()))

    def put(self, entry: Q) -> None:
        """Let something wait behind its tenant's others."""
        self._waiting.setdefault(entry.tenant, deque()).append(entry)

    def take(self, may: Callable[[Q], bool]) -> Q | None:
        """What is next of all that `may` be taken; a tenant whose first may not has to wait with all of its others.

        Of equals the one that came first. None where there is nothing.
        """
        heads = sorted(
            (queue[0] for queue in self._waiting.values()),
            key=lambda entry: (self._done.get(entry.tenant, 0.0), entry.number),
        )
        entry = next(filter(may, heads), None)
        if entry is not None:
            self.drop(entry)
            self._note(entry)
        return entry

    def drop(self, entry: Q) -> bool:
        """Whether it was there, and is no longer. What was not taken has cost its tenant nothing."""
        queue = self._waiting.get(entry.tenant, deque[Q]())
        if entry not in queue:
            return False
        queue.remove(entry)
        if not queue:
            del self._waiting[entry.tenant]
        return True

    def _note(self, entry: Q) -> None:
        """That this was done, and everything before is longer ago."""
        done = self._done.pop(entry.tenant, 0.0) + entry.cost
        self._done[entry.tenant] = done  # behind those who were served before
        self._done = {tenant: value * (1 - 1 / MEMORY) for tenant, value in self._done.items()}
        gone = [tenant for tenant in self._done if tenant not in self._waiting]
        for tenant in gone[:-MOST_GONE]:
            del self._done[tenant]
