"""What a simulated replica tells of itself: the devices' shares of work, the time of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wanc.compiler.planner.evaluate import busy
from wanc.compiler.planner.flow import HOST
from wanc.compiler.planner.simulate import Flow, SimulatedRun, simulate


@dataclass(frozen=True)
class Timeline:
    """The share of its time in which each device of a replica works, in the long run; the host is not counted."""

    shares: Mapping[int, float]

    def mean(self, devices: int) -> float:
        """Over so many devices, those that never work included."""
        return sum(self.shares.values()) / devices


def timeline(flow: Flow, requests: int, replicas: int) -> Timeline:
    """Of the replica that has most of the requests."""
    state = busy(flow, -(-requests // replicas))
    span = state.until - state.since
    return Timeline(
        {
            device: state.run.busy(device, state.since, state.until) / span
            for device in sorted(flow.busy)
            if device != HOST
        }
    )


def requests_alone(flow: Flow, requests: int, replicas: int) -> SimulatedRun:
    """What the fullest replica does with just these requests, all of them in flight from the beginning."""
    each = -(-requests // replicas)
    return simulate(flow, each, each)


def step_seconds(flow: Flow) -> float:
    """Of one denoising step of a request alone: both branches, on average over the steps, swaps left out."""
    run = simulate(flow, 1, 1)
    steps = [event for event in run.events if event.what.startswith("denoise")]
    loads = sum(max((hop.seconds for hop in phase.loads), default=0.0) for phase in flow.phases[2:])
    count = sum(phase.executions for phase in flow.phases if phase.name.startswith("denoise"))
    return (max(event.end for event in steps) - min(event.start for event in steps) - loads) / count
