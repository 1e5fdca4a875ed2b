"""What a plan can be told, and what is refused before anything is searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from wanc.compiler.planner.cluster import Cluster
from wanc.compiler.planner.costs import ComponentCosts, VideoCosts
from wanc.compiler.planner.row import Experts
from wanc.errors import RecipeError

Goal = Literal["latency", "throughput"]
Branches = Literal["serial", "parallel"]


@dataclass(frozen=True)
class PlanOptions:
    """The objective, and what is pinned; None is left to the planner.

    `requests` are in flight at once where throughput counts, and memory is planned for them; `latency` is that of one
    alone. `branches` in parallel are on devices of their own. `replicas` are independent copies of everything, `stages`
    the segments of each lane, `ulysses` the devices of each group. `offload_text_encoder` lets the cluster's host have
    the text encoder where no device has room. `activations` are the bytes that a built engine really needs, by
    component; they take the place of those counted. `lighter` are the costs in a smaller precision (its name, the
    costs), which is only tried in order to say whether it would fit. `compare` asks for the table of alternatives,
    which takes longer than the plan itself.
    """

    objective: Goal = "latency"
    requests: int = 4
    branches: Branches | None = None
    experts: Experts | None = None
    replicas: int | None = None
    stages: int | None = None
    ulysses: int | None = None
    tensor_parallel: int = 1
    allow_idle: bool = False
    offload_text_encoder: bool = False
    activations: Mapping[str, int] = field(default_factory=dict[str, int])
    lighter: tuple[str, VideoCosts] | None = None
    compare: bool = True

    @property
    def in_flight(self) -> int:
        """Requests at once: for latency one has all the devices to itself."""
        return self.requests if self.objective == "throughput" else 1


def check_options(options: PlanOptions, costs: VideoCosts, cluster: Cluster) -> None:
    """An error for the first option that cannot be met whatever the devices' memory is."""
    if options.tensor_parallel != 1:
        raise RecipeError(
            "tensor parallelism is refused: Wan normalises queries and keys over all heads, so that every norm would "
            "need an all-reduce of its own",
            hint="use `ulysses`, which splits tokens, or stages of a pipeline",
        )
    _check_word("objective", options.objective, get_args(Goal))
    _check_word("branches", options.branches, get_args(Branches))
    _check_word("experts", options.experts, get_args(Experts))
    for name in ("requests", "replicas", "stages", "ulysses"):
        number = getattr(options, name)
        if number is not None and number < 1:
            raise RecipeError(f"{name} is {number}", hint="write a whole number above 0")
    if not cluster.pools or any(pool.count < 1 for pool in cluster.pools):
        raise RecipeError("a plan needs a device", hint="write a count of 1 or more for every kind")
    if len(cluster.pools) > 1 and cluster.between is None:
        raise RecipeError(
            "nothing is said of the link between machines", hint="write what connects them, as `ethernet`"
        )
    _check_copies(options, costs)
    if options.ulysses is not None:
        check_ulysses(options.ulysses, costs.experts[0])


def _check_copies(options: PlanOptions, costs: VideoCosts) -> None:
    if options.experts in ("apart", "swap") and len(costs.experts) < 2:
        raise RecipeError(f"experts: {options.experts} needs two experts, the model has one", hint="leave it out")
    if options.branches == "parallel" and costs.experts[0].branches < 2:
        raise RecipeError(
            "there is one guidance branch: nothing can be parallel to it", hint="write `branches: serial`"
        )
    if (options.replicas or 1) > options.in_flight:
        raise RecipeError(
            f"{options.replicas} replicas have {options.in_flight} request(s) in flight: some would never work",
            hint="write as many `requests` as replicas, with `objective: throughput`",
        )


def check_ulysses(ranks: int, component: ComponentCosts) -> None:
    """An error that says why tokens cannot be split over so many ranks."""
    reason = ulysses_refusal(ranks, component)
    if reason:
        able = [str(n) for n in range(1, (component.heads or 1) + 1) if not ulysses_refusal(n, component)]
        raise RecipeError(f"Ulysses over {ranks} devices: {reason}", hint=f"choose one of {', '.join(able)}")


def ulysses_refusal(ranks: int, component: ComponentCosts) -> str | None:
    """Why tokens of a component cannot be split over so many ranks, None where they can."""
    if ranks == 1:
        return None
    if component.heads is None or component.tokens is None:
        return f"{component.name} has no tokens that could be split"
    if component.heads % ranks:
        return f"{component.heads} heads of attention cannot be divided by {ranks}"
    if component.heads // ranks < 2:
        return f"{component.heads // ranks} head a device has no fused kernel for attention; 2 are needed"
    if component.tokens % ranks:
        return f"{component.tokens} tokens cannot be divided by {ranks}"
    return None


def _check_word(name: str, value: str | None, words: tuple[str, ...]) -> None:
    if value is not None and value not in words:
        raise RecipeError(f"{name} is {value!r}", hint=f"choose one of {', '.join(words)}")
