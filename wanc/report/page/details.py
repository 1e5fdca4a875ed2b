"""The tables that only the page has: what holds of one bundle, what was asked for, and where it was measured."""

from __future__ import annotations

from collections import Counter

from wanc.report.document import LayerGroup, ReportDocument, ReportedBundle
from wanc.report.subject import FLOAT
from wanc.report.tables import ReportCell, ReportTable, prompt_of, text_table
from wanc.report.values import baseline_of
from wanc.report.wording import quantity, times


def invariants(entry: ReportedBundle) -> ReportTable:
    """What has to hold exactly, what does not hold first."""
    found = entry.quality.invariants if entry.quality else []
    rows = [
        [
            ReportCell(one.name),
            ReportCell("does not apply")
            if one.holds is None
            else ReportCell("holds", outcome="pass")
            if one.holds
            else ReportCell("does not hold", outcome="regression"),
            ReportCell(one.detail),
        ]
        for one in sorted(found, key=lambda one: (one.holds is not False, one.name))
    ]
    return ReportTable("What holds exactly", ("Invariant", "Holds", "Detail"), rows)


def worst_layers(entry: ReportedBundle) -> ReportTable:
    """The Linears that are furthest from the float model."""
    layers = sorted(entry.quality.worst_layers if entry.quality else [], key=lambda layer: layer.sqnr_db)
    rows = [[layer.name, layer.scheme, quantity(layer.sqnr_db, "dB"), layer.reason] for layer in layers]
    return text_table("Worst layers", ("Layer", "Scheme", "SQNR", "Reason"), rows)


def worst_frames(report: ReportDocument, entry: ReportedBundle) -> ReportTable:
    """The frames that are furthest from the reference's."""
    frames = sorted(entry.quality.worst_frames if entry.quality else [], key=lambda frame: frame.psnr_db)
    rows = [
        [f"{frame.frame} of clip {frame.clip}", quantity(frame.psnr_db, "dB"), prompt_of(report, frame.clip)]
        for frame in frames
    ]
    return text_table("Worst frames", ("Frame", "PSNR", "Prompt"), rows)


def changed_schemes(report: ReportDocument, entry: ReportedBundle) -> ReportTable:
    """The Linears that are computed otherwise than in the baseline."""
    baseline = baseline_of(report)
    before = baseline.facts.schemes if baseline else entry.facts.schemes
    rows = [
        [name, before.get(name, "–"), entry.facts.schemes.get(name, "–")]
        for name in sorted({*before, *entry.facts.schemes})
        if before.get(name) != entry.facts.schemes.get(name)
    ]
    return text_table(f"Computed otherwise than in {report.baseline}", ("Linear", "Baseline", "Here"), rows)


def schemes(entry: ReportedBundle) -> ReportTable:
    """How many Linears of each component are computed how."""
    found = Counter((name.partition("/")[0], scheme) for name, scheme in entry.facts.schemes.items())
    rows = [[component, scheme, str(count)] for (component, scheme), count in sorted(found.items())]
    return text_table("How Linears are computed", ("Component", "Scheme", "Linears"), rows)


def reference(report: ReportDocument) -> ReportTable:
    """What all are held against."""
    if not (found := report.reference):
        return text_table("Reference", ("", ""), [])
    floors = [[f"floor of {floor.unit}", f"{floor.draws} draws"] for floor in found.floors]
    rows = [
        ["model", found.model],
        ["video", f"{found.width}×{found.height}, {found.frames} frames at {found.fps} per second"],
        ["sampling", f"{found.solver}, {found.steps} steps"],
        *([["made in", f"{found.chunks}, in fp32"]] if found.chunks else []),
        ["key", found.key],
        *floors,
        *([["detector", found.detector]] if found.detector else []),
    ]
    return text_table("Reference", ("Fact", "Value"), rows, "The untouched model in float32, on this machine.")


def machine(report: ReportDocument) -> ReportTable:
    """Where it was measured."""
    found = report.machine
    rows = [
        ["processor", found.processor],
        ["threads", f"{found.threads} on {found.cores} cores"],
        ["features", ", ".join(found.features)],
        *([tool, version] for tool, version in sorted(found.tools.items())),
        ["wanc", report.wanc],
    ]
    return text_table("Machine", ("Fact", "Value"), rows, "Times are compared only where all of this is the same.")


def layer_groups(report: ReportDocument, entry: ReportedBundle) -> ReportTable:
    """What groups of Linears take inside a step, and whether it paid to quantise them."""
    rows = [
        [one.expert, one.group, one.scheme, _milliseconds(one.seconds), _milliseconds(one.baseline_seconds), _paid(one)]
        for one in entry.groups
    ]
    note = "Linears at the same place of all blocks, in a step of one branch, by the account of the engine's library."
    header = ["Expert", "Linears", "Scheme", "Takes", f"In {report.baseline}", "Did 8 bits or fewer pay?"]
    # Without a baseline there is nothing to say of one.
    shown = len(header) if report.baseline else 4
    return text_table("What Linears take, by group", header[:shown], [row[:shown] for row in rows], note)


def _milliseconds(seconds: float | None) -> str:
    return quantity(None if seconds is None else 1e3 * seconds, "ms")


def _paid(group: LayerGroup) -> str:
    """Only where the baseline has in float what the bundle has not is there something that paid or did not."""
    if not group.baseline_seconds or group.scheme == FLOAT or group.baseline_scheme != FLOAT:
        return "–"
    faster = group.baseline_seconds / group.seconds if group.seconds else 0.0
    return f"{'yes' if faster > 1 else 'no'}, {times(faster)} as fast"
