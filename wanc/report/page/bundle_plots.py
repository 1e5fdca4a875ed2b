"""The plots of one bundle: the errors of its steps, what its phases take beside the baseline's, and its memory."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from wanc.report import wording
from wanc.report.document import Branch, MemoryPoint, ReportDocument, ReportedBundle, StepError
from wanc.report.page.drawing import FAINT, SYMBOLS, Plot, axis, levels, line, logarithmic, near, plot, said
from wanc.report.values import PHASES, baseline_of, experts_of, floors_of
from wanc.report.wording import label, number, quantity

BRANCHES: tuple[Branch, ...] = ("guided", "conditional", "unconditional")
LEAST_LABELLED_SHARE = 0.06
BINARY = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1))


def step_errors(report: ReportDocument, entry: ReportedBundle) -> Plot | None:
    """The error of each step's velocity, of each expert and branch; beside it the baseline's and the floors."""
    if not (entry.quality and entry.quality.steps):
        return None
    traces = [_steps_of(entry.quality.steps, branch) for branch in BRANCHES]
    baseline = baseline_of(report)
    if baseline and baseline.quality and baseline is not entry:
        guided = [one for one in baseline.quality.steps if one.branch == "guided"]
        faint = {"color": FAINT, "width": 2, "dash": "dash"}
        x, y = [one.step for one in guided], [one.error for one in guided]
        traces.append(line(f"{baseline.name}, guided", x, y, mode="lines", line=faint))
    floors = [
        (floor.velocity_error, f"noise floor, {floor.unit}")
        for floor in floors_of(report)
        if near(floor.velocity_error, [one.error for one in entry.quality.steps])
    ]
    lines = levels(floors, is_log=True)
    largest = max(entry.quality.steps, key=lambda one: one.error)
    return plot(
        "Error of the velocity at each step",
        f"The largest is {number(largest.error)} at step {largest.step}, {largest.expert}, {largest.branch}.",
        traces,
        xaxis=axis("step"),
        yaxis=logarithmic("relative error"),
        shapes=lines["shapes"],
        annotations=[*lines["annotations"], *_expert_names(entry.quality.steps)],
        hovermode="x unified",
    )


def _expert_names(steps: Sequence[StepError]) -> list[dict[str, Any]]:
    """Each expert's name above its steps."""
    notes: list[dict[str, Any]] = []
    for expert in experts_of(steps):
        own = [one.step for one in steps if one.expert == expert]
        place = {"x": (min(own) + max(own)) / 2, "yref": "paper", "y": 1, "yanchor": "top", "showarrow": False}
        notes.append({**place, "text": said(expert, 20), "font": {"color": FAINT, "size": 11}})
    return notes


def _steps_of(steps: Sequence[StepError], branch: Branch) -> dict[str, Any]:
    """A branch's line, with another marker for each expert, and interrupted where one follows the other."""
    experts = experts_of(steps)
    x: list[int | None] = []
    y: list[float | None] = []
    symbols: list[str] = []
    told: list[str] = []
    for expert in experts:
        for one in steps:
            if (one.expert, one.branch) == (expert, branch):
                x, y = [*x, one.step], [*y, one.error]
                symbols.append(SYMBOLS[experts.index(expert) % len(SYMBOLS)])
                told.append(f"{number(one.error)}, {said(expert)}")
        x, y, symbols, told = [*x, None], [*y, None], [*symbols, SYMBOLS[0]], [*told, ""]
    trace = line(branch, x, y, BRANCHES.index(branch), hovertext=told, hoverinfo="text+name")
    trace["marker"]["symbol"] = symbols
    return trace


def ratios(report: ReportDocument, entry: ReportedBundle) -> Plot | None:
    """How many times as long each phase takes as the baseline's, and between what bounds."""
    if not entry.ratios or report.baseline is None:
        return None
    found = sorted(entry.ratios, key=lambda one: PHASES.index(one.phase) if one.phase in PHASES else len(PHASES))
    names = [said(label(one.phase)) for one in found]
    bars = {"type": "data", "symmetric": False, "thickness": 2, "width": 5}
    bars |= {"array": [one.high - one.ratio for one in found], "arrayminus": [one.ratio - one.low for one in found]}
    told = [f"{said(label(one.phase))}: {wording.ratio(one)}, {one.pairs} pairs" for one in found]
    values = [one.ratio for one in found]
    trace = line(entry.name, values, names, mode="markers", error_x=bars, hovertext=told, hoverinfo="text")
    trace["marker"] |= {"size": 10}
    same = {"type": "line", "x0": 1, "x1": 1, "yref": "paper", "y0": 0, "y1": 1, "line": {"color": FAINT, "width": 1}}
    return plot(
        f"Times as long as {report.baseline}",
        "; ".join(told) + ".",
        [trace],
        xaxis=axis("times as long – left of 1 is faster"),
        yaxis=axis(autorange="reversed", type="category"),
        shapes=[same],
        showlegend=False,
        hovermode="closest",
        height=max(200, 34 * len(found) + 80),
    )


def memory(report: ReportDocument, entry: ReportedBundle) -> Plot | None:
    """What a bundle holds from moment to moment, in which phase; beside it the baseline's."""
    points = entry.speed.memory if entry.speed else []
    if not points:
        return None
    peak = max(points, key=lambda point: point.rss_bytes)
    unit, size = next((unit, size) for unit, size in BINARY if peak.rss_bytes >= size or size == 1)
    traces = [_held(entry.name, points, size)]
    baseline = baseline_of(report)
    if baseline and baseline is not entry and baseline.speed and baseline.speed.memory:
        traces.append(_held(baseline.name, baseline.speed.memory, size) | {"fill": "none", "line": {"color": FAINT}})
    bands, notes = _phases(points)
    return plot(
        "Memory",
        f"At most {quantity(peak.rss_bytes, 'bytes')}, {number(peak.seconds)} s after the start, in {peak.phase}.",
        traces,
        xaxis=axis("seconds"),
        yaxis=axis(unit, rangemode="tozero"),
        shapes=bands,
        annotations=notes,
        showlegend=len(traces) > 1,
        hovermode="x",
    )


def _held(name: str, points: Sequence[MemoryPoint], size: int) -> dict[str, Any]:
    told = [f"{said(label(point.phase))}: {quantity(point.rss_bytes, 'bytes')}" for point in points]
    x, y = [point.seconds for point in points], [point.rss_bytes / size for point in points]
    held = line(name, x, y, mode="lines", hovertext=told, hoverinfo="text")
    return held | {"fill": "tozeroy", "fillcolor": "var(--fill)"}


def _phases(points: Sequence[MemoryPoint]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every other phase shaded, and each named that is long enough to hold its name."""
    bands: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    starts = [(phase, next(group).seconds) for phase, group in groupby(points, key=lambda point: point.phase)]
    ends = [start for _, start in starts[1:]] + [points[-1].seconds]
    whole = points[-1].seconds - points[0].seconds
    for index, ((phase, start), end) in enumerate(zip(starts, ends, strict=True)):
        if index % 2:
            band = {"type": "rect", "yref": "paper", "x0": start, "x1": end, "y0": 0, "y1": 1, "layer": "below"}
            bands.append(band | {"line": {"width": 0}, "fillcolor": "var(--shade)"})
        if end - start >= LEAST_LABELLED_SHARE * whole:
            place = {"x": (start + end) / 2, "yref": "paper", "y": 0.02, "yanchor": "bottom", "showarrow": False}
            notes.append(
                place | {"text": said(label(phase), 24), "textangle": -90, "font": {"color": FAINT, "size": 11}}
            )
    return bands, notes
