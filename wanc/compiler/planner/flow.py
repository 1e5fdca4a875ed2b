"""A candidate as what the simulator executes: routes through groups of devices, and what is sent between them."""

from __future__ import annotations

from dataclasses import replace

from wanc.compiler.planner.candidates import Candidate
from wanc.compiler.planner.cluster import Cluster
from wanc.compiler.planner.costs import VideoCosts
from wanc.compiler.planner.lane import Lane
from wanc.compiler.planner.roofline import part_seconds
from wanc.compiler.planner.row import DENOISE, Phase
from wanc.compiler.planner.simulate import Flow, FlowPhase, Hop, Route
from wanc.errors import RecipeError

HOST = -1
"""The number of the host among the devices."""


def flow_of(costs: VideoCosts, candidate: Candidate) -> Flow:
    """What each request goes through on the devices of the first replica."""
    lanes = candidate.lanes
    if candidate.setting.on_host:
        encode: Route = (Hop((HOST,), _on_host(costs, candidate.setting.chains[0])),)
    else:
        encode = _whole(lanes[0], "encode", last=False)
    phases = [FlowPhase("encode", 1, (encode,) * costs.text_encoder.branches)]
    for phase, expert in zip(DENOISE, costs.experts, strict=False):
        # Branches that share a lane go through it one behind the other.
        routes = tuple(_route(lane, phase) for lane in lanes for _ in range(lane.row.branches))
        phases.append(FlowPhase(phase, expert.executions, routes, _loads(lanes)))
    # A decoder's executions follow each other without a pause: its caches and a denoiser's activations are not in
    # memory at once.
    frames = costs.decoder.executions * costs.decoder.branches
    decode = tuple(replace(hop, seconds=frames * hop.seconds) for hop in _whole(lanes[0], "decode", last=True))
    phases.append(FlowPhase("decode", 1, (decode,)))
    return Flow(tuple(phases))


def _on_host(costs: VideoCosts, cluster: Cluster) -> float:
    if cluster.host is None:
        raise RecipeError("there is no host that could have the text encoder", hint="name one, of kind `cpu`")
    host = cluster.host
    return sum(part_seconds(part, host) for part in costs.text_encoder.parts) * costs.text_encoder.executions


def _whole(lane: Lane, phase: Phase, *, last: bool) -> Route:
    """A component that one device of a group executes alone."""
    ((index, seconds),) = _segments(lane, phase)
    return (Hop((lane.devices[index][-1 if last else 0],), seconds),)


def _segments(lane: Lane, phase: Phase) -> list[tuple[int, float]]:
    """The segments of a lane that work in a phase, by their index, and the seconds of one execution."""
    used = [any(use.phase == phase for use in part.uses) for part in lane.row.parts]
    return [
        (index, times.execution(cut.start, cut.stop, phase))
        for index, (cut, times) in enumerate(zip(lane.cuts, lane.times, strict=True))
        if any(used[cut.start : cut.stop])
    ]


def _route(lane: Lane, phase: Phase) -> Route:
    """One execution of a denoiser. What the last segment gives goes back to the first one, for the next step."""
    segments = _segments(lane, phase)
    hops: list[Hop] = []
    for (index, seconds), (following, _) in zip(segments, [*segments[1:], segments[0]], strict=True):
        sending = 0.0
        if index != following:
            parts, cut = lane.row.parts, lane.cuts[index]
            last = max(at for at in range(cut.start, cut.stop) if any(use.phase == phase for use in parts[at].uses))
            one, other = cut.place, lane.cuts[following].place
            link = lane.cluster.link(one.pool, other.pool)
            sending = link.seconds(parts[last].part.leaves / min(one.ranks, other.ranks))
        hops.append(Hop(lane.devices[index], seconds, sending))
    return tuple(hops)


def _loads(lanes: tuple[Lane, ...]) -> tuple[Hop, ...]:
    """One for each group that has to take another expert's weights before a phase."""
    return tuple(
        Hop(group, seconds)
        for lane in lanes
        for cut, group, times in zip(lane.cuts, lane.devices, lane.times, strict=True)
        if (seconds := times.load(cut.start, cut.stop))
    )
