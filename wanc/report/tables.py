"""The tables that HTML and Markdown share, as text: gates, quality, speed, and what the bundles are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wanc.report import wording
from wanc.report.document import Outcome, ReportDocument, ReportedBundle
from wanc.report.values import (
    METRICS,
    SEVERITY,
    baseline_of,
    estimate,
    floor_value,
    floors_of,
    in_order,
    metrics,
    multiple,
    phases,
)
from wanc.report.wording import NOT_MEASURED, OUTCOMES, quantity

LONGEST_PROMPT = 120


@dataclass(frozen=True)
class ReportCell:
    """What stands in a cell, what stands below it in small print, and the outcome that colours it, if any."""

    text: str
    note: str = ""
    outcome: Outcome | None = None


@dataclass(frozen=True)
class ReportTable:
    """Rows under a header. The first cell of a row says what the row is about, unless an outcome stands there."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[ReportCell]]
    note: str = ""


def text_table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> ReportTable:
    """A table of nothing but texts."""
    return ReportTable(caption, header, [[ReportCell(text) for text in row] for row in rows], note)


def gates(report: ReportDocument) -> ReportTable:
    """Every demand and what came of it, what is not met first."""
    rows = [
        [
            ReportCell(OUTCOMES[gate.outcome].word, outcome=gate.outcome),
            ReportCell(gate.name, note=gate.kind),
            ReportCell(gate.bundle),
            ReportCell(gate.demand),
            ReportCell(wording.gate_value(gate)),
            ReportCell(wording.gate_bound(gate)),
            ReportCell(gate.reason),
        ]
        for gate in sorted(report.gates, key=lambda gate: SEVERITY.index(gate.outcome))
    ]
    passed = Counter(gate.outcome for gate in report.gates)["pass"]
    header = ("Outcome", "Gate", "Bundle", "Demand", "Value", "Bound", "Reason")
    return ReportTable(f"{passed} of {len(rows)} gates passed", header, rows)


def quality(report: ReportDocument) -> ReportTable:
    """How far each bundle is from the reference, and how many noise floors that is."""
    rows: list[list[ReportCell]] = []
    for metric in metrics(report):
        unit, way = wording.unit_of(metric), wording.better(metric)
        head = ReportCell(wording.label(metric), note=f"{way} is better" if way else "")
        cells = [quality_cell(report, entry, metric) for entry in report.bundles]
        floors = [ReportCell(quantity(floor_value(floor, metric), unit)) for floor in floors_of(report)]
        rows.append([head, *cells, *floors])
    header = ["Metric", *_names(report), *(f"{floor.unit} floor" for floor in floors_of(report))]
    note = "Mean over clips and its 95 % interval; below it, how many times as far from the reference as a floor is."
    return ReportTable("Quality against the reference", header, rows, note)


def quality_cell(report: ReportDocument, entry: ReportedBundle, metric: str) -> ReportCell:
    """A metric of a bundle with its bounds, and how many times as far from the reference as each floor that is."""
    found = estimate(entry, metric)
    if found is None:
        return ReportCell(NOT_MEASURED)
    multiples = [
        f"{wording.times(factor)} {floor.unit}"
        for floor in floors_of(report)
        if (least := floor_value(floor, metric)) is not None
        and (factor := multiple(metric, found.mean, least)) is not None
    ]
    return ReportCell(wording.interval(found, wording.unit_of(metric)), note=" · ".join(multiples))


def speed(report: ReportDocument) -> ReportTable:
    """How long each phase takes, and how many times as long as the baseline's."""
    rows = [
        [ReportCell(wording.label(phase)), *(speed_cell(entry, phase) for entry in report.bundles)]
        for phase in phases(report)
    ]
    if rows:
        rows += [[ReportCell(name), *(ReportCell(tell(entry)) for entry in report.bundles)] for name, tell in RATES]
    note = "Median of rounds and where four fifths of them lie (10th to 90th percentile)"
    if baseline := baseline_of(report):
        note += f"; below it, times as long as {baseline.name}, in pairs of the same round, with its 95 % interval"
    return ReportTable("Speed", ["Phase", *_names(report)], rows, f"{note}.")


def speed_cell(entry: ReportedBundle, phase: str) -> ReportCell:
    """A phase's median with its spread, and how many times the baseline's that is."""
    times = entry.speed.phases.get(phase) if entry.speed else None
    if times is None:
        return ReportCell(NOT_MEASURED)
    found = next((one for one in entry.ratios if one.phase == phase), None)
    return ReportCell(wording.spread(times), note=wording.ratio(found) if found else "")


RATES: Sequence[tuple[str, Callable[[ReportedBundle], str]]] = (
    ("videos per hour", lambda entry: quantity(entry.speed and entry.speed.videos_per_hour)),
    ("peak memory", lambda entry: quantity(entry.speed and entry.speed.peak_rss_bytes, "bytes")),
    (
        "attention's share of a step's FLOPs",
        lambda entry: quantity(entry.speed and entry.speed.attention_share, "share"),
    ),
)

FACTS: Sequence[tuple[str, Callable[[ReportedBundle], str]]] = (
    ("recipe", lambda entry: entry.recipe),
    ("id", lambda entry: entry.facts.id),
    ("version", lambda entry: entry.facts.version),
    ("engine", lambda entry: entry.facts.engine),
    ("compute", lambda entry: entry.facts.compute),
    ("scheme", lambda entry: entry.facts.scheme),
    ("segments", lambda entry: str(entry.facts.segments)),
    ("size", lambda entry: quantity(entry.facts.size_bytes, "bytes")),
    ("build time", lambda entry: quantity(entry.facts.build_seconds, "s")),
)


def worst_prompts(report: ReportDocument, entry: ReportedBundle, most: int | None = None) -> ReportTable:
    """All metrics of each clip, what is furthest from the reference first; at most so many clips."""
    videos = list(enumerate(entry.quality.videos if entry.quality else []))
    names = in_order((name for _, video in videos for name in video), METRICS)
    if ranked := next((name for name in names if wording.better(name)), None):
        sign = 1 if wording.better(ranked) == "higher" else -1
        videos.sort(key=lambda pair: sign * pair[1].get(ranked, 0.0))
    rows = [
        [str(clip), *(quantity(video.get(name), wording.unit_of(name)) for name in names), prompt_of(report, clip)]
        for clip, video in videos[:most]
    ]
    note = f"The furthest from the reference first, by {wording.label(ranked)}." if ranked else ""
    header = ("Clip", *map(wording.label, names), "Prompt")
    return text_table(f"Worst prompts of {entry.name}", header, rows, note)


def prompt_of(report: ReportDocument, clip: int) -> str:
    """The beginning of what a clip was asked for."""
    return wording.shortened(report.clips[clip].prompt, LONGEST_PROMPT) if 0 <= clip < len(report.clips) else ""


def external(report: ReportDocument) -> ReportTable:
    """What scorers outside of wanc have said, the mean first."""
    scored = [(entry, entry.external) for entry in report.bundles if entry.external]
    rows = [["mean", *(quantity(scores.mean_percent, "percent") for _, scores in scored)]] if scored else []
    for dimension in sorted({name for _, scores in scored for name in scores.dimensions}):
        rows.append([dimension, *(quantity(scores.dimensions.get(dimension)) for _, scores in scored)])
    note = " ".join(f"{entry.name}: of {scores.source}, SHA-256 {scores.sha256}." for entry, scores in scored)
    return text_table("Scores from outside", ["Dimension", *(entry.name for entry, _ in scored)], rows, note)


def facts(report: ReportDocument) -> ReportTable:
    """What each bundle is, as it was built."""
    rows = [[name, *(tell(entry) for entry in report.bundles)] for name, tell in FACTS]
    components = sorted({name for entry in report.bundles for name in entry.facts.int8_linear_share})
    for component in components:
        shares = [entry.facts.int8_linear_share.get(component) for entry in report.bundles]
        rows.append([f"INT8 share of {component}'s Linears", *(quantity(share, "share") for share in shares)])
    return text_table("The bundles as they were built", ["Fact", *_names(report)], rows)


def _names(report: ReportDocument) -> list[str]:
    return [f"{entry.name} (baseline)" if entry.name == report.baseline else entry.name for entry in report.bundles]
