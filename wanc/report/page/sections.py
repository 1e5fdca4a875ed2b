"""The page from the verdict down to the machine, in sections; what there is nothing for is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from wanc.report import tables, wording
from wanc.report.document import ReportDocument
from wanc.report.page import chunk_plots, details, player, plots
from wanc.report.page.bundles import bundles
from wanc.report.page.drawings import DataUri, Drawings, strip
from wanc.report.page.html import Markup, element, table_of, together
from wanc.report.values import baseline_of, metrics, value_of
from wanc.report.wording import OUTCOMES, quantity

TILED_METRICS = 2


@dataclass(frozen=True)
class PageSection:
    """A part of the page that its navigation leads to."""

    id: str
    title: str
    body: Markup | None


def sections(
    report: ReportDocument, data_uri: DataUri, drawings: Drawings, videos: dict[str, list[str | None]]
) -> Markup:
    """All sections that hold something, behind the links to them."""
    pareto = together(drawings.place(plots.pareto(report)), _hint(report))
    compared = together(
        *(table_of(tell(report), "numbers") for tell in (tables.quality, tables.external, tables.speed))
    )
    known = [
        PageSection("gates", "Gates", table_of(tables.gates(report), "gates")),
        PageSection("compared", "Speed against quality", together(pareto, compared)),
        PageSection("bundles", "Bundles", bundles(report, data_uri, drawings)),
        PageSection("watch", "Side by side", player.player(report, videos)),
        PageSection("drift", "Drift", _drift(report, drawings)),
        PageSection("trend", "Trend", _grid(map(drawings.place, plots.trends(report)))),
        PageSection("clips", "What was asked for", _clips(report, data_uri)),
        PageSection("facts", "Facts", _facts(report)),
        PageSection("notes", "Notes", _notes(report)),
    ]
    shown = [one for one in known if one.body]
    links = [element("a", one.title, href=f"#{one.id}") for one in shown]
    parts = [element("section", element("h2", one.title), one.body, id=one.id) for one in shown]
    missing = ", ".join(one.title for one in known if not one.body)
    told = element("p", f"Not measured: {missing}.", class_="missing") if missing else None
    return together(element("nav", *links, aria_label="Sections"), element("main", *parts, told))


def _drift(report: ReportDocument, drawings: Drawings) -> Markup | None:
    """Of the latents behind each step; of a causal model's chunks, what becomes of them one after the other."""
    shown = [drawings.place(plot) for plot in (plots.drift(report), *chunk_plots.chunks(report))]
    table = tables.chunks(report)
    return together(*shown, table_of(table, "numbers") if table.rows else None) or None


def _hint(report: ReportDocument) -> Markup | None:
    several = len(report.bundles) > 1
    return element("p", "Choose a point to see that bundle below.", class_="hint") if several else None


def verdict(report: ReportDocument) -> Markup:
    """Whether it may ship, why, and the figures of the new bundle in short."""
    found = report.verdict
    words = OUTCOMES[found.outcome]
    icon = element("span", words.icon, class_="icon", aria_hidden="true")
    return element(
        "header",
        element("p", report.title, class_="title"),
        element("h1", icon, f" {words.headline}"),
        element("p", found.summary, class_="summary"),
        _cause(report),
        _tiles(report),
        class_=f"verdict {found.outcome}",
    )


def _cause(report: ReportDocument) -> Markup | None:
    if not (cause := report.verdict.cause):
        return None
    begin = f"It begins at the {cause.kind} "
    return element("p", begin, element("code", cause.name), f": {cause.detail}", class_="cause")


def _tiles(report: ReportDocument) -> Markup | None:
    """What the new bundle comes to: a label, a value, and what that is beside the baseline or the floors."""
    if not report.bundles:
        return None
    new, baseline = report.bundles[0], baseline_of(report)
    counts = Counter(gate.outcome for gate in report.gates)
    others = [f"{counts[one]} {words.word}" for one, words in OUTCOMES.items() if one != "pass" and counts[one]]
    ratio = tables.speed_cell(new, "total").note
    share = f"{wording.times(new.facts.size_bytes / baseline.facts.size_bytes)} baseline" if baseline else ""
    tiles = [
        ("New bundle", new.name, f"baseline {report.baseline}" if report.baseline else "no baseline"),
        ("Gates passed", f"{counts['pass']} of {len(report.gates)}", ", ".join(others)),
        ("Time for a video", quantity(value_of(new, "total"), "s"), f"{ratio} baseline" if ratio else ""),
        *((wording.label(metric), *_metric(report, metric)) for metric in metrics(report)[:TILED_METRICS]),
        ("Size", quantity(new.facts.size_bytes, "bytes"), share),
    ]
    shown = [
        element("div", element("dt", name), element("dd", value, element("small", note) if note else None))
        for name, value, note in tiles
    ]
    return element("dl", *shown, class_="tiles")


def _metric(report: ReportDocument, metric: str) -> tuple[str, str]:
    note = tables.quality_cell(report, report.bundles[0], metric).note
    value = quantity(value_of(report.bundles[0], metric), wording.unit_of(metric))
    return value, f"floors: {note}" if note else ""


def _clips(report: ReportDocument, data_uri: DataUri) -> Markup | None:
    """Every prompt with its seed, and the reference's frames of it."""
    media = report.reference.media if report.reference else []
    uris = [data_uri(one.strip) for one in media] + [None] * len(report.clips)
    shown = [
        strip(f"Clip {number}, seed {clip.seed}: {clip.prompt}", uri, ("reference",))
        or element("p", f"Clip {number}, seed {clip.seed}: {clip.prompt}")
        for number, (clip, uri) in enumerate(zip(report.clips, uris, strict=False))
    ]
    return together(*shown) or None


def _facts(report: ReportDocument) -> Markup | None:
    whole = table_of(tables.facts(report), "long") if report.bundles else None
    return together(
        whole, _grid([table_of(details.reference(report), "long"), table_of(details.machine(report), "long")])
    )


def _notes(report: ReportDocument) -> Markup | None:
    return element("ul", *(element("li", note) for note in report.notes)) if report.notes else None


def _grid(parts: Iterable[Markup | None]) -> Markup | None:
    """Side by side where there is room."""
    found = [part for part in parts if part]
    return element("div", *found, class_="grid") if found else None
