"""Two videos of one clip over each other, in step, with a slider for the time and one for where they meet."""

from __future__ import annotations

import json
from collections.abc import Sequence

from wanc.report.document import Media, ReportDocument
from wanc.report.page.drawings import DataUri
from wanc.report.page.html import Markup, element, together
from wanc.report.wording import shortened

LONGEST_CHOICE = 60
REFERENCE = "reference"


def videos(report: ReportDocument, data_uri: DataUri) -> dict[str, list[str | None]]:
    """The videos of the reference and of each bundle by clip, those that are there, ready to be played."""
    owners: dict[str, Sequence[Media]] = {str(index): entry.media for index, entry in enumerate(report.bundles)}
    owners = {REFERENCE: report.reference.media if report.reference else [], **owners}
    found = {owner: [data_uri(one.video) for one in media] for owner, media in owners.items()}
    return {owner: clips for owner, clips in found.items() if any(clips)}


def as_json(found: dict[str, list[str | None]]) -> str:
    """The same for the page's script."""
    return json.dumps(found)


def player(report: ReportDocument, found: dict[str, list[str | None]]) -> Markup | None:
    """The player; None where there are no two videos to compare."""
    if len(found) < 2:
        return None
    names = {REFERENCE: "Reference", **{str(index): entry.name for index, entry in enumerate(report.bundles)}}
    owners = [(owner, names[owner]) for owner in found]
    count = max(map(len, found.values()))
    clips = [(str(clip), _clip_name(report, clip)) for clip in range(count)]
    left, right = owners[0][0], owners[1][0]
    choices = element(
        "div",
        _choice("Clip", "clip", clips, "0"),
        _choice("Left", "left", owners, left),
        _choice("Right", "right", owners, right),
        class_="controls",
    )
    stage = element(
        "div",
        element("video", id="video-left", muted=True, playsinline=True, preload="auto", aria_label="Left video"),
        element("video", id="video-right", muted=True, playsinline=True, preload="auto", aria_label="Right video"),
        element("span", id="seam"),
        id="stage",
    )
    fps = report.reference.fps if report.reference else 16
    return element("div", choices, stage, _controls(), id="player", data_fps=fps)


def _clip_name(report: ReportDocument, clip: int) -> str:
    prompt = report.clips[clip].prompt if clip < len(report.clips) else ""
    return f"{clip}: {shortened(prompt, LONGEST_CHOICE)}"


def _choice(label: str, name: str, options: Sequence[tuple[str, str]], chosen: str) -> Markup:
    shown = [element("option", text, value=value, selected=value == chosen) for value, text in options]
    return element("label", element("span", label), element("select", *shown, id=name))


def _controls() -> Markup:
    range_ = {"type": "range", "min": 0, "step": "any"}
    wipe = element("input", id="wipe", max=100, value=50, aria_label="Where the two videos meet, in percent", **range_)
    time = element("input", id="time", max=1, value=0, aria_label="Time in both videos", **range_)
    buttons = [
        element("button", "◀", id="back", type="button", aria_label="One frame back"),
        element("button", "▶ Play", id="play", type="button"),
        element("button", "▶", id="forward", type="button", aria_label="One frame on"),
    ]
    difference = element("label", element("input", id="difference", type="checkbox"), " difference × 8", class_="check")
    slow = element("label", element("input", id="slow", type="checkbox"), " quarter speed", class_="check")
    return together(
        element("div", element("span", "Wipe"), wipe, class_="slider"),
        element("div", element("span", "Time"), time, element("output", "", id="frame"), class_="slider"),
        element("div", *buttons, slow, difference, class_="controls"),
    )
