"""Where plots go in a page, and pictures: figures with a title, and a description for those who do not see them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from wanc.report.page.drawing import Plot
from wanc.report.page.html import Markup, element

DataUri = Callable[[str], str | None]
"""A file beside the document as text, by its path; None where it is not there."""


@dataclass
class Drawings:
    """The plots of a page, each in its place by its number."""

    plots: list[Plot] = field(default_factory=list[Plot])

    def place(self, plot: Plot | None) -> Markup | None:
        """Where a plot will be drawn; None of none."""
        if plot is None:
            return None
        self.plots.append(plot)
        place = element(
            "div",
            class_="drawn",
            data_plot=len(self.plots) - 1,
            role="img",
            aria_label=plot.description,
            style=f"height: {plot.figure['layout']['height']}px",
        )
        return element("figure", element("figcaption", plot.title), place, class_="plot")

    def json(self) -> str:
        """All of them, in the order of their numbers."""
        return json.dumps([plot.figure for plot in self.plots], allow_nan=False)


def strip(title: str, uri: str | None, rows: tuple[str, ...]) -> Markup | None:
    """Frames from left to right, with the name of each row; None where the file is not there."""
    if uri is None:
        return None
    told = f"{title}: frames from left to right, in rows from the top: {', '.join(rows)}"
    picture = element("img", src=uri, alt=told)
    names = element("div", *(element("span", row) for row in rows), class_="rows", aria_hidden="true")
    shown = element("div", names, picture, class_="strip", tabindex=0, role="group", aria_label=told)
    return element("figure", element("figcaption", title), shown)
