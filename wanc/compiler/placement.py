"""Where the segments of a build lie: as the planner has decided, and small enough for what may build them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from wanc.compiler.planner.building import component_of, segment_bytes
from wanc.compiler.planner.costs import ComponentCosts, VideoCosts
from wanc.compiler.planner.placed import PlannedDevice, PlannedSegment
from wanc.compiler.planner.plan import Plan
from wanc.compiler.planner.recipe_plan import RecipePlan
from wanc.compiler.program.program import Placement, Segment
from wanc.errors import NotBuiltYetError, UserError

GIB = 2**30


@dataclass(frozen=True)
class Range:
    """Blocks `first` … `stop` - 1 of a component on one device, or on several `ranks` that split its tokens."""

    component: str
    first: int
    stop: int
    device: str
    ranks: tuple[str, ...] = ()

    @classmethod
    def on(cls, component: str, first: int, stop: int, devices: Sequence[str]) -> Range:
        """On some devices, of which only one need not split anything."""
        return cls(component, first, stop, devices[0], tuple(devices) if len(devices) > 1 else ())

    @property
    def devices(self) -> tuple[str, ...]:
        return self.ranks or (self.device,)


def planned_placement(planned: RecipePlan, most_bytes: int | None) -> Placement:
    """The segments of a plan, cut further where building one would take more than `most_bytes`.

    Raises NotBuiltYetError for plans of which wanc builds no engines yet, UserError where not even one block can be
    built in so much memory.
    """
    largest = planned.largest
    _check_built(largest.plan)
    ranges = planned_ranges(largest.plan)
    return placement(largest.costs, ranges, most_bytes)


def whole_model(costs: VideoCosts, device: str) -> list[Range]:
    """All of a model on one device."""
    return [Range(component.name, 0, len(component.parts), device) for component in costs.components]


def placement(costs: VideoCosts, ranges: Iterable[Range], most_bytes: int | None) -> Placement:
    """Segments for some ranges of blocks, in the order of each component's blocks."""
    ordered = sorted(ranges, key=lambda one: one.first)
    devices = tuple(dict.fromkeys(device for one in ordered for device in one.devices))
    names = dict.fromkeys(one.component for one in ordered)
    if most_bytes is not None:
        _check_blocks_fit([component_of(costs, name) for name in names], most_bytes)
    segments: list[Segment] = []
    for name in names:
        cut = [piece for one in ordered if one.component == name for piece in _cut(costs, one, most_bytes)]
        segments += [Segment(name, index, one.first, one.stop, one.device, one.ranks) for index, one in enumerate(cut)]
    return Placement(devices, tuple(segments))


def _check_built(plan: Plan) -> None:
    if plan.text_encoder_on_host:
        raise NotBuiltYetError(
            "in this plan the text encoder is executed by the host, which takes an engine of its own, not built yet",
            hint="plan for devices with more memory, or for one more",
        )
    groups: dict[str, set[int]] = {}
    for one in planned_ranges(plan):
        groups.setdefault(one.component, set()).add(len(one.devices))
    if any(len(sizes) > 1 for sizes in groups.values()):
        raise NotBuiltYetError(
            "in this plan more devices split the tokens of some segments than of others, which is not built yet",
            hint="set partition.ulysses to a number that all groups of devices can have, or to 1",
        )


def planned_ranges(plan: Plan) -> list[Range]:
    """What the first chain of devices that has a component executes of it.

    Other copies, and a second chain for a branch, execute the same blocks, which may be cut elsewhere there. Devices
    that have the same blocks split their tokens.
    """
    found: dict[PlannedSegment, list[PlannedDevice]] = {}
    chain: dict[str, int] = {}
    for device in plan.devices:
        for one in device.segments if device.replica == 0 else ():
            if chain.setdefault(one.component, device.lane) == device.lane:
                found.setdefault(one, []).append(device)
    return [
        Range.on(one.component, one.first, one.stop, [device.name for device in sorted(own, key=lambda own: own.rank)])
        for one, own in found.items()
    ]


def _cut(costs: VideoCosts, whole: Range, most_bytes: int | None) -> Iterator[Range]:
    """As few pieces as can be built in `most_bytes`, of as equal sizes as that allows."""
    component = component_of(costs, whole.component)
    for count in range(1, whole.stop - whole.first + 1):
        bounds = [whole.first + (whole.stop - whole.first) * index // count for index in range(count + 1)]
        pieces = list(pairwise(bounds))
        if most_bytes is None or all(segment_bytes(component, *piece) <= most_bytes for piece in pieces):
            yield from (replace(whole, first=first, stop=stop) for first, stop in pieces)
            return
    raise AssertionError("single blocks fit")


def _check_blocks_fit(components: Sequence[ComponentCosts], most_bytes: int) -> None:
    least, name = max(
        (segment_bytes(component, index, index + 1), component.name)
        for component in components
        for index in range(len(component.parts))
    )
    if least > most_bytes:
        raise UserError(
            f"a block of {name} takes {least / GIB:.2f} GiB to build, and it may take {most_bytes / GIB:.2f} GiB",
            hint=f"set engine.max_build_memory to at least {-(-least // 2**20)}MiB",
        )


def check_peak(label: str, peak: int, most_bytes: int | None) -> None:
    """Raises UserError where building took more than it may."""
    if most_bytes is not None and peak > most_bytes:
        raise UserError(
            f"{label} took {peak / GIB:.2f} GiB, more than the {most_bytes / GIB:.2f} GiB of engine.max_build_memory",
            hint="allow more: what was predicted of this model is too low",
        )
