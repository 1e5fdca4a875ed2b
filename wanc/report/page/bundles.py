"""All of one bundle in a panel, of which one is shown at a time: its frames, where its errors arise, its speed."""

from __future__ import annotations

from wanc.report import tables
from wanc.report.document import ReportDocument, ReportedBundle
from wanc.report.page import bundle_plots, details, heat_maps
from wanc.report.page.drawings import DataUri, Drawings, strip
from wanc.report.page.html import Markup, chip, element, table_of, together
from wanc.report.values import worst
from wanc.report.wording import OUTCOMES, quantity, shortened

STRIP_ROWS = ("reference", "this bundle", "difference × 8")
LONGEST_CAPTION = 160


def bundles(report: ReportDocument, data_uri: DataUri, drawings: Drawings) -> Markup | None:
    """A tab for each bundle, and its panel."""
    if not report.bundles:
        return None
    tabs = [_tab(report, entry, index) for index, entry in enumerate(report.bundles)]
    panels = [
        element(
            "article",
            element("h3", entry.name, element("small", _in_short(entry))),
            _panel(report, entry, data_uri, drawings),
            id=f"bundle-{index}",
            role="tabpanel",
            aria_labelledby=f"tab-{index}",
            tabindex=0,
        )
        for index, entry in enumerate(report.bundles)
    ]
    return together(element("div", *tabs, role="tablist", aria_label="Bundles"), *panels)


def _in_short(entry: ReportedBundle) -> str:
    facts = entry.facts
    size = quantity(facts.size_bytes, "bytes")
    return f"{facts.engine} · {facts.compute} · {facts.scheme} · {size} · version {facts.version} · {facts.id}"


def _tab(report: ReportDocument, entry: ReportedBundle, index: int) -> Markup:
    role = "new" if index == 0 else "baseline" if entry.name == report.baseline else ""
    outcome = worst(gate.outcome for gate in report.gates if gate.bundle == entry.name)
    state = {"role": "tab", "aria_selected": "true" if index == 0 else "false", "tabindex": 0 if index == 0 else -1}
    name = element("span", entry.name, class_="name")
    mark = chip(outcome, OUTCOMES[outcome].word) if outcome else None
    small = element("small", role) if role else None
    return element("button", name, small, mark, id=f"tab-{index}", aria_controls=f"bundle-{index}", **state)


def _panel(report: ReportDocument, entry: ReportedBundle, data_uri: DataUri, drawings: Drawings) -> Markup:
    heat = [drawings.place(plot) for plot in heat_maps.block_errors(report, entry)]
    times = [drawings.place(bundle_plots.ratios(report, entry)), drawings.place(bundle_plots.memory(report, entry))]
    parts = [
        ("Frames", together(*_strips(report, entry, data_uri))),
        ("Where errors arise", together(drawings.place(bundle_plots.step_errors(report, entry)), _grid(*heat))),
        ("What is worst", _worst(report, entry)),
        ("Exactness", table_of(details.invariants(entry))),
        ("Time and memory", _grid(*times)),
        ("Linears", _linears(report, entry)),
    ]
    failure = element("p", "Nothing of it was measured: ", entry.failure, class_="failure") if entry.failure else None
    shown = [together(element("h4", title), body) for title, body in parts if body]
    missing = ", ".join(title[0].lower() + title[1:] for title, body in parts if not body)
    told = element("p", f"Not measured: {missing}.", class_="missing") if missing else None
    return together(failure, *shown, told)


def _worst(report: ReportDocument, entry: ReportedBundle) -> Markup | None:
    layers, frames = details.worst_layers(entry), details.worst_frames(report, entry)
    prompts = table_of(tables.worst_prompts(report, entry), "numbers")
    return together(_grid(table_of(layers), table_of(frames, "numbers")), prompts) or None


def _strips(report: ReportDocument, entry: ReportedBundle, data_uri: DataUri) -> list[Markup | None]:
    return [strip(_told(report, clip), data_uri(media.strip), STRIP_ROWS) for clip, media in enumerate(entry.media)]


def _told(report: ReportDocument, clip: int) -> str:
    if clip >= len(report.clips):
        return f"Clip {clip}"
    asked = report.clips[clip]
    return f"Clip {clip}, seed {asked.seed}: {shortened(asked.prompt, LONGEST_CAPTION)}"


def _linears(report: ReportDocument, entry: ReportedBundle) -> Markup | None:
    """How many of which kind; to be unfolded, which of them are not as they are in the baseline; and what they take."""
    changed = details.changed_schemes(report, entry)
    summary = element("summary", f"{len(changed.rows)} computed otherwise than in {report.baseline}")
    unfolded = element("details", summary, table_of(changed)) if changed.rows else None
    times = table_of(details.layer_groups(report, entry), "numbers")
    return together(table_of(details.schemes(entry)), unfolded, times)


def _grid(*parts: Markup | None) -> Markup | None:
    """Side by side where there is room."""
    return element("div", *parts, class_="grid") if any(parts) else None
