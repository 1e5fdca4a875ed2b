"""The plan of a video model on a cluster: what lies where, how fast that is predicted to be, and what it needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from wanc.compiler.planner.candidates import Candidate, Style, fitting
from wanc.compiler.planner.cluster import Cluster
from wanc.compiler.planner.compare import Alternative, alternatives
from wanc.compiler.planner.costs import ComponentCosts, VideoCosts
from wanc.compiler.planner.devices import Efficiency
from wanc.compiler.planner.evaluate import best, latency, throughput
from wanc.compiler.planner.fit import one_device_seconds
from wanc.compiler.planner.options import Branches, Goal, PlanOptions, check_options
from wanc.compiler.planner.placed import PlannedDevice, Transfer, one_device_fits, planned_devices, transfers
from wanc.compiler.planner.row import Experts
from wanc.compiler.planner.shares import eight_bit_bound, flops_share
from wanc.compiler.planner.shortage import shortage
from wanc.compiler.planner.simulate import Flow, SimulatedRun
from wanc.compiler.planner.timeline import requests_alone, step_seconds, timeline


@dataclass(frozen=True)
class Plan:
    """Everything that was chosen and predicted. Seconds and bytes throughout; nothing of it was measured.

    `video_seconds` are those of one request alone, `throughput` videos/s with `requests` in flight, in the long run,
    `finite_throughput` that of just these requests, begun and ended with empty devices. `one_device_seconds` are those
    of one device of the kind `one_device_kind`, with both experts in its memory, whether or not they fit
    (`one_device_fits`). `bubble_share` is the share of the devices' time in the long run in which they wait.
    `sending_seconds` are those in which values of one video are on the links between segments. `eight_bit_bound` is
    how many times faster a step can become by 8-bit Linears alone. `run` are the events of
    `requests` on the first replica.
    """

    shape: str
    objective: Goal
    requests: int
    style: Style
    replicas: int
    branches: Branches
    experts: Experts
    text_encoder_on_host: bool
    devices: tuple[PlannedDevice, ...]
    step_seconds: float
    video_seconds: float
    throughput: float
    finite_throughput: float
    one_device_kind: str
    one_device_seconds: float
    one_device_fits: bool
    bubble_share: float
    transfers: tuple[Transfer, ...]
    sending_seconds: float
    attention_share: float
    eight_bit_bound: float
    alternatives: tuple[Alternative, ...]
    efficiencies: dict[str, dict[str, Efficiency]]
    run: SimulatedRun = field(repr=False)

    @property
    def throughput_vs_one(self) -> float:
        """How many times the videos/s of one device these devices give together."""
        return self.throughput * self.one_device_seconds

    @property
    def latency_vs_one(self) -> float:
        """How many times faster than on one device a single video is."""
        return self.one_device_seconds / self.video_seconds

    def as_json(self) -> dict[str, Any]:
        """What programs read; the events are not in it."""
        fields = {
            name: value for name, value in asdict(replace(self, run=SimulatedRun((), ()))).items() if name != "run"
        }
        derived = {"throughput_vs_one": self.throughput_vs_one, "latency_vs_one": self.latency_vs_one}
        return {**fields, **derived, "predicted": True}


def plan_video(costs: VideoCosts, cluster: Cluster, options: PlanOptions) -> Plan:
    """The best plan for the objective, of all that the options leave open.

    Raises RecipeError for options that cannot be met, and where nothing fits: it says what lacks how much, and the
    smallest change with which it would fit.
    """
    check_options(options, costs, cluster)
    costs = _with_measured(costs, options)
    found = fitting(costs, cluster, options)
    if not found:
        raise shortage(costs, cluster, options)
    chosen, flow, _ = best(costs, found, options.objective, options.in_flight)
    return _plan(costs, cluster, options, chosen, flow)


def _plan(costs: VideoCosts, cluster: Cluster, options: PlanOptions, chosen: Candidate, flow: Flow) -> Plan:
    expert, replicas = costs.experts[0], len(chosen.setting.shares)
    busy = timeline(flow, options.in_flight, replicas)
    alone = requests_alone(flow, options.in_flight, replicas)
    one = min((pool.device for pool in cluster.pools), key=lambda device: one_device_seconds(costs, device))
    return Plan(
        shape=costs.shape,
        objective=options.objective,
        requests=options.in_flight,
        style=chosen.style,
        replicas=replicas,
        branches=chosen.setting.branches,
        experts=chosen.setting.experts,
        text_encoder_on_host=chosen.setting.on_host,
        devices=planned_devices(cluster, chosen, busy.shares),
        step_seconds=step_seconds(flow),
        video_seconds=latency(flow),
        throughput=throughput(flow, options.in_flight, replicas),
        finite_throughput=options.in_flight / max(alone.finished),
        one_device_kind=one.kind,
        one_device_seconds=one_device_seconds(costs, one),
        one_device_fits=one_device_fits(costs, one),
        bubble_share=max(0.0, 1 - busy.mean(cluster.count // replicas)),
        transfers=tuple(transfers(costs, chosen)),
        sending_seconds=flow.sending,
        attention_share=flops_share(expert, "attention"),
        eight_bit_bound=eight_bit_bound(expert),
        alternatives=tuple(alternatives(costs, cluster, options)) if options.compare and cluster.count > 1 else (),
        efficiencies={
            pool.device.kind: {str(name): value for name, value in pool.device.efficiencies.items()}
            for pool in cluster.pools
        },
        run=alone,
    )


def _with_measured(costs: VideoCosts, options: PlanOptions) -> VideoCosts:
    """Costs with the activations that engines were found to need."""

    def measured(component: ComponentCosts) -> ComponentCosts:
        needed = options.activations.get(component.name)
        if needed is None:
            return component
        return replace(component, parts=tuple(replace(part, activation=needed) for part in component.parts))

    return replace(
        costs,
        text_encoder=measured(costs.text_encoder),
        experts=tuple(measured(expert) for expert in costs.experts),
        decoder=measured(costs.decoder),
    )
