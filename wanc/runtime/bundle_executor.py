"""What executes a bundle's engines: as it was planned, and as a run is asked for."""

from __future__ import annotations

from collections.abc import Collection

from .budget import MemoryFacts, chosen_budget
from .bundle import Bundle
from .cores import threads_to_use
from .executor import Executor


def executor_of(
    bundle: Bundle,
    *,
    planned: MemoryFacts | None = None,
    thrifty: Collection[str] = (),
    threads: int | None = None,
    device_budget: str | None = None,
    workers: str | None = None,
    worker_timeout: float | None = None,
) -> Executor:
    """`planned` is what the bundle's budget was planned with, if it was; `thrifty` are components, as in `Executor`.

    The others are those of `RunLimits`. Raises UserError where they cannot be kept: for more threads than this machine
    has, a budget that the bundle was not planned for, and what `Executor` raises.
    """
    return Executor(
        bundle.folder,
        bundle.engines,
        threads=threads_to_use(threads, bundle.threads),
        budget=chosen_budget(planned, device_budget),
        thrifty=thrifty,
        transport=workers,
        worker_timeout=worker_timeout,
    )
