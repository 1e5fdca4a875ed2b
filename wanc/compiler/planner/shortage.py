"""What is said where nothing fits: which device lacks how many bytes, and the smallest change that would help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from wanc.compiler.planner.candidates import attempts, fitting, least_missing
from wanc.compiler.planner.cluster import Cluster, Pool
from wanc.compiler.planner.costs import VideoCosts
from wanc.compiler.planner.options import PlanOptions
from wanc.errors import RecipeError

GIB = 2**30


def shortage(costs: VideoCosts, cluster: Cluster, options: PlanOptions) -> RecipeError:
    """The error for a cluster on which nothing fits, for its best attempt: that which lacks least."""
    lacking = list(_lacking(costs, cluster, options))
    if not lacking:
        return RecipeError(
            f"{cluster.count} device(s) cannot all be used with these options",
            hint="leave out `stages`, `ulysses` or `replicas`, or write `allow_idle: true`",
        )
    missing, name, needed = min(lacking)
    change = next((words for words, fits in _changes(costs, cluster, options) if fits), None)
    return RecipeError(
        f"{name} lacks {missing / GIB:.2f} GiB ({missing:,} bytes): "
        f"it needs {needed / GIB:.2f} GiB in the placement that comes closest",
        hint=f"it fits with {change}" if change else "no single change is enough: take larger devices or more of them",
    )


def _lacking(costs: VideoCosts, cluster: Cluster, options: PlanOptions) -> Iterator[tuple[int, str, int]]:
    """Of each attempt the bytes that its neediest device lacks, that device's name, and what it needs."""
    for attempt in attempts(costs, cluster, options):
        for setting in attempt:
            for lane in least_missing(costs, setting, options):
                needs = (
                    (one.peak(cut.start, cut.stop) - cluster.pool_of(number).device.memory, number)
                    for number, cut, one in lane.footprints()
                )
                missing, number = max(needs)
                if missing > 0:
                    yield missing, cluster.name(number), missing + cluster.pool_of(number).device.memory


def _changes(costs: VideoCosts, cluster: Cluster, options: PlanOptions) -> Iterator[tuple[str, bool]]:
    """Small changes in the order in which they are to be recommended, and whether it fits with each."""
    if options.experts not in (None, "swap") and len(costs.experts) > 1:
        yield "`experts: swap`", bool(fitting(costs, cluster, replace(options, experts="swap")))
    whole = replace(options, replicas=1, branches="serial", stages=None, ulysses=None)
    if whole != options:
        yield f"the model cut over all {cluster.count} devices", bool(fitting(costs, cluster, whole))
    if options.lighter:
        name, lighter = options.lighter
        yield f"{name} weights", bool(fitting(lighter, cluster, options))
    pools = [*cluster.pools[:-1], replace(cluster.pools[-1], count=cluster.pools[-1].count + 1)]
    one_more = Cluster.of([Pool(pool.device, pool.count, pool.link) for pool in pools], cluster.between, cluster.host)
    yield f"one more {pools[-1].device.kind}", bool(fitting(costs, one_more, options))
