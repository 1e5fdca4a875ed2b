"""The plots that hold all bundles: speed against quality, drift, and how it was in earlier builds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wanc.report import wording
from wanc.report.document import Estimate, Floor, Outcome, ReportDocument, ReportedBundle
from wanc.report.page.drawing import FAINT, Plot, axis, levels, line, logarithmic, near, plot, said
from wanc.report.values import (
    METRICS,
    VELOCITY_ERROR,
    estimate,
    floor_value,
    floors_of,
    in_order,
    metrics,
    value_of,
)
from wanc.report.wording import OUTCOMES, better, label, number, quantity, unit_of

MOST_TRENDS = 6
MARGIN_DB = 6
OUTCOME_SYMBOLS: dict[Outcome, str] = {
    "pass": "circle",
    "regression": "x",
    "needs-calibration": "diamond-open",
    "not-comparable": "square-open",
    "infrastructure-error": "triangle-up-open",
}


def pareto(report: ReportDocument) -> Plot | None:
    """What a video takes against how far it is from the reference; None where no bundle has both."""
    metric = next((name for name in metrics(report) if better(name)), VELOCITY_ERROR)
    found = [
        (index, entry, seconds, value)
        for index, entry in enumerate(report.bundles)
        if (seconds := value_of(entry, "total")) is not None and (value := estimate(entry, metric))
    ]
    if not found:
        return None
    points = [(seconds, value.mean) for _, _, seconds, value in found]
    is_log = metric == VELOCITY_ERROR and all(value.mean > 0 for *_, value in found)
    floors = [
        (at, f"noise floor, {floor.unit}")
        for floor in floors_of(report)
        if (at := floor_value(floor, metric)) is not None and (not is_log or near(at, [value for _, value in points]))
    ]
    way = better(metric) or "lower"
    title = f"{label(metric)}{_in(unit_of(metric))} – {way} is better"
    return plot(
        "Seconds for a video against the distance from the reference",
        _told([(entry, seconds, value) for _, entry, seconds, value in found], metric),
        [_front(points, way), *(_point(report, *one, _side(one[2], points)) for one in found)],
        xaxis=axis("seconds for a video – lower is better"),
        yaxis=logarithmic(title) if is_log else axis(title),
        **levels(floors, is_log=is_log),
        showlegend=False,
        hovermode="closest",
        height=400,
    )


def _in(unit: str) -> str:
    return f", {unit}" if unit else ""


def _told(found: Sequence[tuple[ReportedBundle, float, Estimate]], metric: str) -> str:
    each = (f"{entry.name}: {quantity(seconds, 's')}, {number(value.mean)}" for entry, seconds, value in found)
    return f"Seconds for a video and {label(metric)}. {'; '.join(each)}."


def _side(seconds: float, points: Sequence[tuple[float, float]]) -> str:
    """Where a point's name has room: away from the nearer edge."""
    known = [time for time, _ in points]
    share = (seconds - min(known)) / (max(known) - min(known) or 1)
    return "top right" if share < 1 / 3 else "top left" if share > 2 / 3 else "top center"


def _point(
    report: ReportDocument, index: int, entry: ReportedBundle, seconds: float, value: Estimate, side: str
) -> dict[str, Any]:
    times = entry.speed.phases["total"] if entry.speed else None
    role = " (new)" if index == 0 else " (baseline)" if entry.name == report.baseline else ""
    bars = {"type": "data", "symmetric": False, "thickness": 1, "width": 3}
    point = line(entry.name, [seconds], [value.mean], index, mode="markers+text", customdata=[index])
    point["marker"] |= {"size": 15, "line": {"width": 2, "color": "var(--card)"}}
    if times:
        point["error_x"] = {**bars, "array": [times.high - seconds], "arrayminus": [seconds - times.low]}
    point["error_y"] = {**bars, "array": [value.high - value.mean], "arrayminus": [value.mean - value.low]}
    return point | {
        "text": [said(entry.name + role)],
        "textposition": side,
        "cliponaxis": False,
        "hovertext": [f"{said(entry.name)}<br>{wording.interval(value)}<br>{quantity(seconds, 's')}"],
        "hoverinfo": "text",
    }


def _front(points: Sequence[tuple[float, float]], way: str) -> dict[str, Any]:
    """The steps along those that no other is both faster and better than."""
    front: list[tuple[float, float]] = []
    for seconds, value in sorted(points, key=lambda point: (point[0], point[1] if way == "lower" else -point[1])):
        if not front or (value < front[-1][1] if way == "lower" else value > front[-1][1]):
            front.append((seconds, value))
    steps = {"color": FAINT, "dash": "dash", "width": 1, "shape": "hv"}
    x, y = zip(*front, strict=True)
    return line("nobody is both faster and better", x, y, mode="lines", line=steps, hoverinfo="skip")


def drift(report: ReportDocument) -> Plot | None:
    """How close latents of a free run stay to the reference's, over the floors."""
    bundles = [(index, entry) for index, entry in enumerate(report.bundles) if entry.quality and entry.quality.drift]
    if not bundles:
        return None
    traces: list[dict[str, Any]] = []
    shown = [point.sqnr_db for _, entry in bundles if entry.quality for point in entry.quality.drift]
    edges = [min(shown) - MARGIN_DB, max(shown) + MARGIN_DB]
    for floor in floors_of(report):
        if floor.drift and floor.drift[-1].sqnr_db < edges[1]:
            traces += _shaded(floor, edges[1])
    for index, entry in bundles:
        points = entry.quality.drift if entry.quality else []
        told = [f"{number(point.sqnr_db)} dB, cosine {point.cosine:.6g}" for point in points]
        steps, values = [point.step for point in points], [point.sqnr_db for point in points]
        traces.append(line(entry.name, steps, values, index, hovertext=told, hoverinfo="text+name"))
    last = ((entry.name, entry.quality.drift[-1]) for _, entry in bundles if entry.quality)
    return plot(
        "SQNR of the latents behind each step of a free run",
        "At the end " + "; ".join(f"{name} has {number(point.sqnr_db)} dB" for name, point in last) + ".",
        traces,
        xaxis=axis("step"),
        yaxis=axis("SQNR, dB – higher is better", range=edges),
        hovermode="x unified",
    )


def _shaded(floor: Floor, top: float) -> list[dict[str, Any]]:
    """What lies above a floor: noise as well as a change."""
    steps = [point.step for point in floor.drift]
    edge = {"color": FAINT, "width": 1, "dash": "dot"}
    name = f"within noise, {floor.unit}"
    below = line(name, steps, [point.sqnr_db for point in floor.drift], mode="lines", line=edge, showlegend=False)
    above = line(name, steps, [top] * len(steps), mode="lines", line={"width": 0}, hoverinfo="skip")
    return [
        below | {"name": f"noise floor, {floor.unit}", "legendgroup": name},
        above | {"fill": "tonexty", "fillcolor": "var(--shade)", "legendgroup": name},
    ]


def trends(report: ReportDocument) -> list[Plot]:
    """Each value that earlier builds have, one after another, and the new bundle's last."""
    names = in_order((name for point in report.trend for name in point.values), METRICS)
    return [_trend(report, name) for name in names[:MOST_TRENDS]]


def _trend(report: ReportDocument, name: str) -> Plot:
    points: list[tuple[str, str, Outcome, float | None]] = [
        (point.name, wording.day(point.time), point.outcome, point.values.get(name)) for point in report.trend
    ]
    if report.bundles and (now := value_of(report.bundles[0], name)) is not None:
        points.append((report.bundles[0].name, "now", report.verdict.outcome, now))
    values = [value for *_, value in points]
    unit, way = unit_of(name), better(name)
    told = [
        f"{said(built)}, {said(time)}<br>{quantity(value, unit)}<br>{OUTCOMES[outcome].word}"
        for built, time, outcome, value in points
    ]
    trace = line(name, list(range(len(points))), values, hovertext=told, hoverinfo="text")
    trace["line"] |= {"color": FAINT, "width": 1}
    trace["marker"] |= {
        "size": 10,
        "symbol": [OUTCOME_SYMBOLS[outcome] for _, _, outcome, _ in points],
        "color": [f"var(--{outcome})" for _, _, outcome, _ in points],
    }
    days = [said(time, 10) for _, time, _, _ in points]
    title = label(name)
    return plot(
        f"{title}{f' – {way} is better' if way else ''}",
        f"{title} over {len(points)} builds, from {quantity(values[0], unit)} to {quantity(values[-1], unit)}.",
        [trace],
        xaxis=axis(tickvals=list(range(len(points))), ticktext=days),
        yaxis=axis(_in(unit).removeprefix(", ")),
        showlegend=False,
        height=220,
    )
