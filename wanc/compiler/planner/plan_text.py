"""A recipe's plan for people: what lies where, how fast that will be, what it needs, and two pictures of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wanc.compiler.planner.chart import Chart, chrome_trace, gantt
from wanc.compiler.planner.decoding import Decoding
from wanc.compiler.planner.placed import PlannedDevice
from wanc.compiler.planner.plan import Plan
from wanc.compiler.planner.recipe_plan import PlannedShape, RecipePlan
from wanc.compiler.planner.row import PHASES
from wanc.compiler.planner.traced import TracedRun, shares
from wanc.runtime.destination import reporting
from wanc.runtime.whole_file import write_whole
from wanc.terminal import TextTable, size_text

PREDICTED = "predicted, not measured"
WHAT = "the plan"


def plan_tables(planned: RecipePlan) -> list[TextTable]:
    """The placement once, and for every size of video what it gives."""
    tables = [_placement(planned)]
    for entry in planned.shapes:
        tables += [
            _speed(entry),
            _alternatives(entry),
            _memory(entry),
            _sessions(entry),
            _budget(entry),
            _published(entry),
        ]
    return [table for table in tables if table.rows]


def write_pictures(planned: RecipePlan, folder: Path) -> list[Path]:
    """A Gantt chart (SVG) and a Chrome trace of every size; returns the files. Raises what `whole_file` raises."""
    with reporting(folder, WHAT):
        folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for entry in planned.shapes:
        names = _names(entry)
        for suffix, text in (
            ("svg", gantt(_chart(planned, entry))),
            ("trace.json", chrome_trace(entry.plan.run, names)),
        ):
            written.append(folder / f"{planned.name}.{entry.plan.shape}.{suffix}")
            write_whole(written[-1], text.encode(), WHAT)
    return written


def write_beside(planned: RecipePlan, traced: TracedRun, folder: Path) -> Path:
    """A picture of the plan of the largest size and, below it, of what a run's trace has of its devices."""
    entry = planned.largest
    measured = Chart(traced.run, _names(entry), f"{planned.name}: measured, from the trace of a run", "measured")
    with reporting(folder, WHAT):
        folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{planned.name}.{entry.plan.shape}.beside.svg"
    write_whole(path, gantt(_chart(planned, entry), measured).encode(), WHAT)
    return path


def beside_table(planned: RecipePlan, traced: TracedRun) -> TextTable:
    """What was predicted beside what a run's trace says: shares of all devices' time, from the first execution on."""
    plan, devices = planned.largest.plan, list(_names(planned.largest))
    run = plan.run
    expected = shares(run, devices, plan.sending_seconds * len(run.finished))
    found = traced.shares(len(devices))
    rows = [
        ("videos", str(len(run.finished)), str(len(traced.run.finished))),
        ("seconds", f"{max(run.finished):.3g}", f"{max(traced.run.finished):.3g}"),
        ("waiting", f"{expected.waiting:.1%}", f"{found.waiting:.1%}"),
        ("sending", f"{expected.sending:.1%}", f"{found.sending:.1%}"),
    ]
    return TextTable(f"{planned.name}: the plan beside a run", rows, ("", "predicted", "measured"))


def device_names(planned: RecipePlan) -> list[str]:
    """Of the devices that its chart shows."""
    return list(_names(planned.largest).values())


def _chart(planned: RecipePlan, entry: PlannedShape) -> Chart:
    return Chart(entry.plan.run, _names(entry), f"{planned.name}, {entry.plan.shape}: {PREDICTED}", "predicted")


def _names(entry: PlannedShape) -> dict[int, str]:
    """The devices of the first replica by their numbers: all replicas do the same."""
    used = sorted({number for event in entry.plan.run.events for number in event.devices})
    first = [device.name for device in entry.plan.devices if device.replica == 0]
    return {number: first[index] if index < len(first) else f"device {number}" for index, number in enumerate(used)}


def _placement(planned: RecipePlan) -> TextTable:
    plan = planned.largest.plan
    rows = [(device.name, _segments(device), _shared(device), f"{device.share:.0%}") for device in plan.devices]
    how = f"{plan.replicas} × " if plan.replicas > 1 else ""
    title = f"{planned.name}: {how}{plan.style}, branches {plan.branches}, experts {plan.experts}"
    return TextTable(title, rows, ("device", "executes", "tokens", "busy"))


def _segments(device: PlannedDevice) -> str:
    return ", ".join(f"{entry.component} {entry.first}–{entry.stop - 1}" for entry in device.segments) or "nothing"


def _shared(device: PlannedDevice) -> str:
    return f"part {device.rank + 1} of {device.ranks}" if device.ranks > 1 else "all"


def _speed(entry: PlannedShape) -> TextTable:
    plan, shape = entry.plan, entry.shape
    fits = "" if plan.one_device_fits else ", on which the model would not fit"
    rows = [
        ("one video alone", f"{_seconds(plan.video_seconds)}, a step {_seconds(plan.step_seconds)}"),
        ("throughput", f"{3600 * plan.throughput:,.1f} videos/h with {plan.requests} at once"),
        (f"against one {plan.one_device_kind}", f"{plan.throughput_vs_one:.2f}× the throughput{fits}"),
        ("waiting", f"{plan.bubble_share:.1%} of the devices' time"),
        (
            "attention",
            f"{plan.attention_share:.0%} of the FLOPs: 8-bit Linears alone give ≤ {plan.eight_bit_bound:.2f}×",
        ),
        *_sent(plan),
        ("decoder", f"{size_text(max(part.activation for part in entry.costs.decoder.parts))} beside its weights"),
        *_decoding(entry.decoding),
        (
            "building",
            f"{size_text(entry.building.rss_bytes)} of memory, {size_text(entry.building.disk_bytes)} on disk, "
            f"{_seconds(entry.building.seconds)}",
        ),
    ]
    return TextTable(f"{plan.shape}, {shape.width} × {shape.height}, {shape.frames} frames: {PREDICTED}", rows)


def _decoding(decoding: Decoding) -> Iterator[tuple[str, str]]:
    """Both ways to decode, in one row each."""
    for way in (decoding.whole, decoding.tiled):
        if way is None:
            continue
        is_taken = decoding.is_tiled == (way.tiling is not None)
        what = f"{size_text(way.bytes)}, {_seconds(way.seconds)}"
        if way.tiling is not None:
            (height, width), (down, across) = way.tiling.tile, way.tiling.stride
            what += f", {way.work:.2f}× the work, {size_text(way.disk_bytes)} of disk"
            what += f": {width} × {height} pixels every {across} and {down}"
        yield f"in {'tiles' if way.tiling else 'whole pictures'}", what + (", as it is done" if is_taken else "")


def _seconds(count: float) -> str:
    """Some seconds for people: `1,041.5 s`, `26.7 s`, `3.2 ms`."""
    return f"{count:,.1f} s" if count >= 1 else f"{1000 * count:.1f} ms"


def _sent(plan: Plan) -> Iterator[tuple[str, str]]:
    """What goes over each kind of link for one video, on all chains of devices together."""
    for link, what in dict.fromkeys((sent.link, sent.what) for sent in plan.transfers):
        size = sum(sent.bytes_per_video for sent in plan.transfers if (sent.link, sent.what) == (link, what))
        yield f"over {link}", f"{size_text(size)} of {what} a video"


def _alternatives(entry: PlannedShape) -> TextTable:
    rows = [
        (other.link, other.style, _seconds(other.video_seconds), f"{3600 * other.throughput:,.1f}", _fit(other.fits))
        for other in entry.plan.alternatives
    ]
    header = ("link", "style", "one video", "videos/h", "memory")
    return TextTable(f"{entry.plan.shape}, one copy on all devices: {PREDICTED}", rows, header)


def _fit(fits: bool) -> str:
    return "fits" if fits else "would not fit"


def _memory(entry: PlannedShape) -> TextTable:
    rows = [
        (device.name, *(size_text(device.peak_bytes[phase]) for phase in PHASES), size_text(device.memory))
        for device in entry.plan.devices
    ]
    header = ("device", *(phase.replace("_", " ") for phase in PHASES), "there is")
    return TextTable(f"{entry.plan.shape}, peak memory by phase: {PREDICTED}", rows, header)


def _sessions(entry: PlannedShape) -> TextTable:
    found, header = entry.sessions, ("device", "what one video keeps", "videos")
    if found is None:
        return TextTable("", (), header)
    rows = [(name, size_text(size), f"{found.fit_by_device[name]:,}") for name, size in found.bytes_per_session.items()]
    videos = "1 video has" if found.fit == 1 else f"{found.fit:,} videos have"
    return TextTable(f"{entry.plan.shape}, {videos} room at once: {PREDICTED}", rows, header)


def _budget(entry: PlannedShape) -> TextTable:
    header = ("phase", "values", "engines", "at least", "peak")
    resident = entry.resident
    if resident is None:
        return TextTable("", (), header)
    rows = [
        (name, *(size_text(phase.as_json(resident.budget)[key]) for key in ("values", "weights", "least", "peak")))
        for name, phase in resident.phases.items()
    ]
    fits = f"all of it takes {size_text(resident.whole)}"
    if resident.least > resident.budget:
        fits = f"too little: {size_text(resident.least)} are needed"
    title = f"{entry.plan.shape}, within a budget of {size_text(resident.budget)} ({fits}): {PREDICTED}"
    return TextTable(title, rows, header)


def _published(entry: PlannedShape) -> TextTable:
    rows = [*_prediction(entry), *((one.source, one.devices, _seconds(one.seconds)) for one in entry.published)]
    title = f"{entry.plan.shape}, beside published times of one video alone"
    return TextTable(title, rows if entry.published else (), ("what", "devices", "seconds"))


def _prediction(entry: PlannedShape) -> Iterator[tuple[str, str, str]]:
    kinds = [device.kind for device in entry.plan.devices]
    devices = ", ".join(f"{kinds.count(kind)}×{kind}" for kind in dict.fromkeys(kinds))
    yield f"this recipe, {PREDICTED}", devices, _seconds(entry.plan.video_seconds)
