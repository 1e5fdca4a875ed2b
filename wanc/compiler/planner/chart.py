"""What each device does when, as a Gantt chart in SVG, and as a trace that browsers' trace viewers open."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from html import escape

from wanc.compiler.planner.simulate import Event, SimulatedRun

WIDTH, LABELS, ROW, TOP = 1200, 130, 34, 48
TICKS = 8
# Events of one request that follow each other within half a pixel are one bar; so a file stays small.
GAP = 0.5 * (1 / WIDTH)
MICROSECONDS = 1e6

# A phase is told by its pattern as well as by its colour, and by the text on a bar that has room for it.
PATTERNS: Mapping[str, str] = {
    "encode": '<path d="M0 4h8" class="mark"/>',
    "denoise_high": "",
    "denoise_low": '<path d="M0 8L8 0" class="mark"/>',
    "decode": '<circle cx="4" cy="4" r="1.5" class="dot"/>',
    "load": '<path d="M0 8L8 0M0 0L8 8" class="mark"/>',
}
WORDS: Mapping[str, str] = {
    "encode": "text",
    "denoise_high": "high noise",
    "denoise_low": "low noise",
    "decode": "decode",
    "load": "load weights",
}
STYLE = """
svg{font:12px system-ui,sans-serif;background:#fff;color:#1a1a1a}
text{fill:currentColor}.line{stroke:#ccc}.mark{stroke:#000;stroke-opacity:.45;fill:none}.dot{fill:#000;fill-opacity:.5}
.bar{stroke:#fff;stroke-width:.5}.bar+text,.on{fill:#111;pointer-events:none}
.encode{fill:#b7b7b7}.denoise_high{fill:#7fb2e5}.denoise_low{fill:#f2b66d}.decode{fill:#8fce9b}.load{fill:#e39aa8}
@media(prefers-color-scheme:dark){svg{background:#16181c;color:#e8e8e8}.line{stroke:#444}.bar{stroke:#16181c}}
"""


@dataclass(frozen=True)
class Bar:
    """A stretch in which a device works for one request in one phase, in seconds; `busy` are those it really works."""

    what: str
    request: int
    start: float
    end: float
    busy: float


def bars(run: SimulatedRun, device: int, gap: float) -> list[Bar]:
    """A device's work in the order of time; events of one request and phase at most `gap` seconds apart are one bar."""
    found: list[Bar] = []
    for event in sorted((one for one in run.events if device in one.devices), key=lambda one: one.start):
        last = found[-1] if found else None
        seconds = event.end - event.start
        if last and (last.what, last.request) == (event.what, event.request) and event.start - last.end <= gap:
            found[-1] = Bar(last.what, last.request, last.start, event.end, last.busy + seconds)
        else:
            found.append(Bar(event.what, event.request, event.start, event.end, seconds))
    return found


@dataclass(frozen=True)
class Chart:
    """A run of some devices, by their numbers, under a `title`; `source` is what its times are: predicted, measured."""

    run: SimulatedRun
    names: Mapping[int, str]
    title: str
    source: str

    @property
    def height(self) -> int:
        """Of its drawing, in pixels."""
        return TOP + ROW * (len(self.names) + 2)

    @property
    def described(self) -> str:
        """What it shows, for those who do not see it."""
        run, end = self.run, max(self.run.finished)
        works = (f"{name} works {run.busy(device, 0, end) / end:.0%}" for device, name in self.names.items())
        return f"{len(run.finished)} request(s) in {end:.3g} s, {self.source}. Of this time {', '.join(works)}."

    def drawn(self) -> Iterator[str]:
        """Its elements, from y = 0 on."""
        end = max(self.run.finished)
        scale = (WIDTH - LABELS - 20) / end
        yield f'<text x="10" y="20" font-size="15">{escape(self.title)}</text>'
        yield from _axis(end, scale, self.height)
        for row, (device, name) in enumerate(self.names.items()):
            y = TOP + ROW * row
            yield f'<text x="10" y="{y + 20}">{escape(name)}</text>'
            yield from _drawn(bars(self.run, device, GAP * end), y, scale)
        yield from _legend({event.what for event in self.run.events}, self.height - 12)


def gantt(*charts: Chart) -> str:
    """An SVG file of some charts, one below the other, each with a row for each device and a time of its own; light or
    dark as the reader's system is.
    """
    height, title = sum(chart.height for chart in charts), " / ".join(chart.title for chart in charts)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(" ".join(chart.described for chart in charts))}</desc>',
        f"<style>{STYLE}</style>",
        "<defs>",
        *(
            f'<pattern id="p-{what}" width="8" height="8" patternUnits="userSpaceOnUse">'
            f'<rect width="8" height="8" class="{what}"/>{mark}</pattern>'
            for what, mark in PATTERNS.items()
        ),
        "</defs>",
    ]
    top = 0
    for chart in charts:
        lines += [f'<g transform="translate(0 {top})">', *chart.drawn(), "</g>"]
        top += chart.height
    return "\n".join([*lines, "</svg>", ""])


def _axis(end: float, scale: float, height: int) -> Iterator[str]:
    bottom = height - ROW - 12
    for tick in range(TICKS + 1):
        seconds = end * tick / TICKS
        x = LABELS + seconds * scale
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{bottom}" class="line"/>'
        yield f'<text x="{x:.1f}" y="{TOP - 10}" text-anchor="middle">{seconds:.4g} s</text>'


def _drawn(stretch: Iterable[Bar], y: int, scale: float) -> Iterator[str]:
    for bar in stretch:
        x, width = LABELS + bar.start * scale, max(0.3, (bar.end - bar.start) * scale)
        told = f"request {bar.request}, {WORDS[bar.what]}, {bar.start:.2f}-{bar.end:.2f} s, works {bar.busy:.2f} s"
        yield (
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 6}" class="bar" fill="url(#p-{bar.what})">'
            f"<title>{told}</title></rect>"
        )
        if width > 16:
            yield f'<text x="{x + 2:.1f}" y="{y + 18}" class="on">r{bar.request}</text>'


def _legend(used: set[str], y: int) -> Iterator[str]:
    for index, what in enumerate(what for what in PATTERNS if what in used):
        x = LABELS + 150 * index
        yield f'<rect x="{x}" y="{y - 12}" width="16" height="14" fill="url(#p-{what})"/>'
        yield f'<text x="{x + 22}" y="{y}">{WORDS[what]}</text>'


def chrome_trace(run: SimulatedRun, names: Mapping[int, str]) -> str:
    """JSON in the trace event format: a process for each device, an event for each execution, in microseconds."""
    named = [
        {"ph": "M", "name": "process_name", "pid": device, "tid": 0, "args": {"name": name}}
        for device, name in names.items()
    ]
    done = [_traced(event, device) for event in run.events for device in event.devices if device in names]
    return json.dumps({"displayTimeUnit": "ms", "traceEvents": [*named, *done]}, separators=(",", ":"))


def _traced(event: Event, device: int) -> dict[str, object]:
    return {
        "ph": "X",
        "name": f"r{event.request} {event.what} {event.step}",
        "cat": event.what,
        "pid": device,
        "tid": 0,
        "ts": round(event.start * MICROSECONDS),
        "dur": round((event.end - event.start) * MICROSECONDS),
        "args": {"request": event.request, "branch": event.branch, "step": event.step},
    }
