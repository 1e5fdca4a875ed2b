"""What a candidate is worth, by simulation: how long one request takes, and how many come out of a busy cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from wanc.compiler.planner.candidates import Candidate
from wanc.compiler.planner.costs import VideoCosts
from wanc.compiler.planner.flow import flow_of
from wanc.compiler.planner.simulate import Flow, SimulatedRun, simulate

# A busy replica is looked at from the end of the first round of requests to that of the third; a fourth keeps it busy.
ROUNDS = 4


@dataclass(frozen=True)
class Busy:
    """A replica with `in_flight` requests at once: videos/s between two moments, and what it did all along.

    Videos/s are counted by what the slowest device does: it never does more than it can, and so they are not above the
    bound even where videos bunch.
    """

    in_flight: int
    throughput: float
    since: float
    until: float
    run: SimulatedRun


def latency(flow: Flow) -> float:
    """Seconds of one request that has all devices of a replica to itself."""
    return simulate(flow, 1, 1).finished[0]


def busy(flow: Flow, in_flight: int) -> Busy:
    """What a replica does in the long run."""
    run = simulate(flow, ROUNDS * in_flight, in_flight)
    finished = sorted(run.finished)
    since, until = finished[in_flight - 1], finished[(ROUNDS - 1) * in_flight - 1]
    slowest = max(flow.busy, key=lambda device: flow.busy[device])
    share = run.busy(slowest, since, until) / (until - since)
    return Busy(in_flight, share / flow.busy[slowest], since, until, run)


def requests_of_replicas(requests: int, replicas: int) -> Counter[int]:
    """How many replicas have how many of the requests in flight."""
    few, rest = divmod(requests, replicas)
    return Counter({few + 1: rest, few: replicas - rest})


def throughput(flow: Flow, requests: int, replicas: int) -> float:
    """Videos/s of all replicas in the long run, with so many requests in flight altogether."""
    shares = requests_of_replicas(requests, replicas)
    return sum(number * busy(flow, each).throughput for each, number in shares.items() if number and each)


def throughput_bound(flow: Flow, requests: int, replicas: int) -> float:
    """Videos/s that cannot be exceeded: a device does one thing at a time, and no request is faster than alone."""
    slowest, alone = max(flow.busy.values()), latency(flow)
    shares = requests_of_replicas(requests, replicas)
    return sum(number * min(1 / slowest, each / alone) for each, number in shares.items() if number)


def best(costs: VideoCosts, found: list[Candidate], objective: str, requests: int) -> tuple[Candidate, Flow, float]:
    """The best of some candidates, what flows through it, and its seconds or videos/s; of equal ones the first.

    For throughput they are simulated in the order of their bounds, until no bound is above what was reached.
    """
    flows = [flow_of(costs, candidate) for candidate in found]
    if objective == "latency":
        seconds = [latency(flow) for flow in flows]
        index = seconds.index(min(seconds))
        return found[index], flows[index], seconds[index]
    replicas = [len(candidate.setting.shares) for candidate in found]
    bounds = [throughput_bound(flow, requests, number) for flow, number in zip(flows, replicas, strict=True)]
    reached: dict[int, float] = {}
    for index in sorted(range(len(found)), key=lambda one: -bounds[one]):
        if reached and bounds[index] <= max(reached.values()):
            break
        reached[index] = throughput(flows[index], requests, replicas[index])
    index = min(reached, key=lambda one: (-reached[one], one))
    return found[index], flows[index], reached[index]
