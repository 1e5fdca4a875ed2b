"""What all plots share: figures of plotly whose colours are names, which the page fills in as it draws.

So plots are light or dark as the page is, and there is one place for colours: `style.css`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Values = Mapping[str, Any]
TEXT, FAINT, GRID = "var(--text)", "var(--faint)", "var(--grid)"
SERIES = tuple(f"var(--series-{number})" for number in range(6))
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
HEIGHT = 340
LONGEST_NAME = 36
FARTHEST = 30


@dataclass(frozen=True)
class Plot:
    """A figure, and what it shows in a sentence, for those who do not see it."""

    title: str
    description: str
    figure: Values


def plot(title: str, description: str, traces: Sequence[Values], **layout: Any) -> Plot:
    """A plot whose traces and layout plotly knows: it raises ValueError for a name or a value that it does not."""
    # Loaded late: it takes a second.
    from plotly.graph_objects import Figure
    from plotly.graph_objects import layout as parts

    common: dict[str, Any] = {
        "template": parts.Template(),
        "height": HEIGHT,
        "margin": {"l": 8, "r": 12, "t": 28, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": TEXT},
        "hoverlabel": {"bgcolor": "var(--card)", "font": {"color": TEXT}, "bordercolor": GRID},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": axis(),
        "yaxis": axis(),
    }
    return Plot(title, description, Figure({"data": list(traces), "layout": common | layout}).to_plotly_json())


def axis(title: str = "", **more: Any) -> dict[str, Any]:
    """An axis in the page's colours."""
    common = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "automargin": True, "ticks": ""}
    return {"title": {"text": title}, **common, **more}


def logarithmic(title: str = "", **more: Any) -> dict[str, Any]:
    """An axis over decades."""
    return axis(title, type="log", exponentformat="power", **more)


def said(text: str, most: int = LONGEST_NAME) -> str:
    """A text in a plot, where plotly would take some of HTML for its own; cut where it is long."""
    return escape(text if len(text) <= most else text[: most - 1] + "…", quote=False)


def line(name: str, x: Sequence[Any], y: Sequence[Any], number: int = 0, **more: Any) -> dict[str, Any]:
    """A line with markers; of each number another colour, dash and marker."""
    colour = SERIES[number % len(SERIES)]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(x) <= 60 else "lines",
        "name": said(name),
        "x": list(x),
        "y": list(y),
        "line": {"color": colour, "dash": DASHES[number % len(DASHES)], "width": 2},
        "marker": {"color": colour, "symbol": SYMBOLS[number % len(SYMBOLS)], "size": 6},
        **more,
    }


def levels(heights: Sequence[tuple[float, str]], *, is_log: bool) -> dict[str, Any]:
    """For a layout: horizontal lines through the whole plot, each with its text."""
    shapes: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    for height, text in heights:
        across = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height}
        shapes.append({**across, "line": {"color": FAINT, "width": 1, "dash": "dot"}})
        # Shapes take the value, annotations the logarithm.
        place = {"xref": "paper", "x": 1, "xanchor": "right", "y": math.log10(height) if is_log else height}
        font = {"color": FAINT, "size": 11}
        notes.append({**place, "yanchor": "bottom", "text": said(text), "showarrow": False, "font": font})
    return {"shapes": shapes, "annotations": notes}


def near(height: float, values: Sequence[float]) -> bool:
    """Whether a line at that height leaves room for the values: it is at most a decade and a half away."""
    return min(values) / FARTHEST <= height <= max(values) * FARTHEST


def decades(values: Sequence[float]) -> tuple[list[float], list[str]]:
    """The powers of ten that values lie between, as logarithms, and what they are called."""
    ticks = [*range(math.floor(min(values)), math.ceil(max(values)) + 1)]
    return [float(tick) for tick in ticks], [f"1e{tick}" for tick in ticks]
