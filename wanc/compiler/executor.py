"""Where the stages of a build run: in this process's own children, one after the other, or as tasks of a Ray cluster.

    in-process       the default
    ray              a cluster of this machine alone, which is started for the build and ends with it
    ray:HOST:PORT    a cluster that is running, by the address that `ray.init` takes on one of its nodes

Which it was shows in no result: keys do not name it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from wanc.artifacts.store import Store
from wanc.compiler.stages.runner import OnEnd, Runner
from wanc.errors import UserError
from wanc.runtime.workers.ray_address import cluster_address

IN_PROCESS = "in-process"
RAY = "ray"


@contextmanager
def runner_of(executor: str, store: Store, progress: bool, on_end: OnEnd) -> Generator[Runner]:
    """What runs the stages of one build; at its end nothing of it runs any more.

    Raises UserError for a word that names no executor, and where Ray is asked for and not installed.
    """
    if executor == IN_PROCESS:
        yield Runner(store, progress, on_end=on_end)
        return
    address = cluster_address(executor)
    if address is None and executor != RAY:
        raise UserError(
            f"there is no executor {executor!r}",
            where="--executor",
            hint=f"{IN_PROCESS}; ray, which is started for the build; or ray:HOST:PORT, a cluster that is running",
        )
    from wanc.compiler.stages.ray_runner import RayRunner

    with RayRunner(store, progress, on_end=on_end, address=address) as runner:
        yield runner
