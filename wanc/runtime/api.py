"""Running a bundle from Python: `open(bundle).generate("A red circle moves to the left.").save("out.mp4")`.

Many requests at once: `with open_service(bundle) as service: ticket = service.submit("A red circle moves up.")`.

This is all that others should rely on. A bundle holds it as `runtime.api`, wanc as `wanc.open` and its like.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Unpack

from .crew import Quota
from .flow import Limits
from .options import RunLimits
from .progress import OnProgress, ignore

if TYPE_CHECKING:
    from .graph_task import GraphPipeline
    from .pipeline import Pipeline
    from .service import Service


__all__ = ["Limits", "Quota", "open", "open_graph", "open_service"]

NO_QUOTAS: Mapping[str, Quota] = MappingProxyType({})


def open(bundle: str | Path, *, on_progress: OnProgress = ignore, **how: Unpack[RunLimits]) -> Pipeline:
    """Verify a bundle that makes videos, every file of it, and make it ready: `.generate(prompt, …)` gives a `Result`.

    Engines are opened when they are first needed, or ahead of that, and stay open, so one process should open a bundle
    once. `threads` is the recipe's unless given, 0 for every core. `device_budget`, such as "6GiB", is the recipe's as
    well: what engines and their values may take of memory, for which some are closed and opened again. `workers` is
    "threads", unless given, or "processes": what executes the parts of a bundle that lies on several devices, of which
    each has `worker_timeout` seconds for one, 600 unless given. `on_progress` is called while files are hashed.

    Raises UserError: VerificationError where the bundle is not exactly what was sealed, BundleError where it is none
    or makes no videos, TargetError where it does not fit this machine.
    """
    from .pipeline import Pipeline

    return Pipeline.open(Path(bundle), on_progress=on_progress, **how)


def open_graph(bundle: str | Path, *, on_progress: OnProgress = ignore, **how: Unpack[RunLimits]) -> GraphPipeline:
    """The same for a bundle of one graph: `.run(inputs)` takes and gives arrays by name. Raises UserError."""
    from .graph_task import GraphPipeline

    return GraphPipeline.open(Path(bundle), on_progress=on_progress, **how)


def open_service(
    bundle: str | Path,
    *,
    quotas: Mapping[str, Quota] = NO_QUOTAS,
    limits: Limits | None = None,
    side_by_side: bool = True,
    on_progress: OnProgress = ignore,
    **how: Unpack[RunLimits],
) -> Service:
    """The same as `open` for many requests at once: see `Service`, of which `quotas`, `limits` and `side_by_side` are.

    Raises UserError: what `open` raises, and for quotas that this machine cannot give.
    """
    from .pipeline import Pipeline
    from .service import Service

    pipeline = Pipeline.open(Path(bundle), on_progress=on_progress, **how)
    return Service(pipeline, quotas=quotas, limits=limits, side_by_side=side_by_side)
