"""The tables that HTML and Markdown share, as text: gates, quality, speed, and what the bundles are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from wanc.amdahl import at_most
from wanc.report import wording
from wanc.report.document import ChunkError, Outcome, ReportDocument, ReportedBundle
from wanc.report.prompt_agreement import PROMPT_AGREEMENT
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
        notes = [f"{way} is better" if way else "", _of_reference(report, metric)]
        head = ReportCell(wording.label(metric), note="; ".join(filter(None, notes)))
        cells = [quality_cell(report, entry, metric) for entry in report.bundles]
        floors = [ReportCell(quantity(floor_value(floor, metric), unit)) for floor in floors_of(report)]
        rows.append([head, *cells, *floors])
    header = ["Metric", *_names(report), *(f"{floor.unit} floor" for floor in floors_of(report))]
    note = "Mean over clips and its 95 % interval; below it, how many times as far from the reference as a floor is."
    return ReportTable("Quality against the reference", header, rows, note)


def chunks(report: ReportDocument, most: int | None = None) -> ReportTable:
    """How far each chunk of a causal model's videos is from the reference; of at most so many chunks, evenly spaced."""
    found = [*(entry.quality.chunks if entry.quality else [] for entry in report.bundles)]
    floors = [floor.chunks for floor in floors_of(report)]
    count = max((len(one) for one in found), default=0)
    shown = sorted({round(place) for place in np.linspace(0, count - 1, min(most or count, count))})
    rows = [[ReportCell(str(chunk)), *(_chunk_cell(one, chunk) for one in (*found, *floors))] for chunk in shown]
    header = ["Chunk", *_names(report), *(f"{floor.unit} floor" for floor in floors_of(report))]
    left_out = f" {len(shown)} of {count} chunks, evenly spaced." if len(shown) < count else ""
    note = (
        "Error of the guided velocity at the reference's own states and behind its own past; below it, SQNR of the "
        f"latents and PSNR of the frames as they have drifted.{left_out}"
    )
    return ReportTable("Chunk by chunk", header, rows, note)


def _chunk_cell(chunks: Sequence[ChunkError], chunk: int) -> ReportCell:
    if chunk >= len(chunks):
        return ReportCell(NOT_MEASURED)
    one = chunks[chunk]
    return ReportCell(quantity(one.velocity_error), f"{quantity(one.sqnr_db, 'dB')} · {quantity(one.psnr_db, 'dB')}")


def _of_reference(report: ReportDocument, metric: str) -> str:
    """What the reference comes to by the one figure that is not relative to it."""
    own = report.reference.prompt_agreement if report.reference and metric == PROMPT_AGREEMENT else None
    return f"the reference has {wording.interval(own, wording.unit_of(metric))}" if own else ""


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
        told = {name: [tell(entry) for entry in report.bundles] for name, tell in RATES}
        rows += [[ReportCell(name), *map(ReportCell, cells)] for name, cells in told.items() if any(cells)]
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


def _if_known(value: float | None, unit: str = "") -> str:
    return "" if value is None else quantity(value, unit)


RATES: Sequence[tuple[str, Callable[[ReportedBundle], str]]] = (
    ("videos per hour", lambda entry: quantity(entry.speed and entry.speed.videos_per_hour)),
    ("frames per second, prompt to file", lambda entry: _if_known(entry.speed and entry.speed.frames_per_second)),
    ("frames per second, denoising", lambda entry: _if_known(entry.speed and entry.speed.denoised_frames_per_second)),
    ("keys and values of a video", lambda entry: _if_known(entry.speed and entry.speed.session_bytes, "bytes")),
    ("peak memory", lambda entry: quantity(entry.speed and entry.speed.peak_rss_bytes, "bytes")),
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
    if any(entry.facts.kv_cache for entry in report.bundles):
        rows.append(["made in", *(entry.facts.kv_cache or "all frames at once" for entry in report.bundles)])
    components = sorted({name for entry in report.bundles for name in entry.facts.int8_linear_share})
    for component in components:
        shares = [entry.facts.int8_linear_share.get(component) for entry in report.bundles]
        rows.append([f"INT8 share of {component}'s Linears", *(quantity(share, "share") for share in shares)])
    for expert in sorted({name for entry in report.bundles for name in entry.facts.attention_share}):
        attention = [entry.facts.attention_share.get(expert) for entry in report.bundles]
        rows.append([f"attention's share of {expert}'s FLOPs", *(quantity(share, "share") for share in attention)])
        bounds = [None if share is None else at_most(1 - share) for share in attention]
        rows.append([f"most that 8-bit Linears gain {expert}", *(quantity(bound, "×") for bound in bounds)])
    return text_table("The bundles as they were built", ["Fact", *_names(report)], rows)


def _names(report: ReportDocument) -> list[str]:
    return [f"{entry.name} (baseline)" if entry.name == report.baseline else entry.name for entry in report.bundles]
