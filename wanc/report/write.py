"""A report as files in a folder, each whole or not there at all."""

from __future__ import annotations

import os
from pathlib import Path

from wanc.report.document import ReportDocument, text
from wanc.report.in_toto import statement
from wanc.report.junit import junit
from wanc.report.markdown import markdown
from wanc.report.media import WHAT
from wanc.report.page.page import MediaRoot, page, require_plotly
from wanc.runtime.destination import reporting
from wanc.runtime.whole_file import require_writable, write_whole

DOCUMENT, PAGE = "report.json", "index.html"


def require_report(folder: Path) -> None:
    """Find out before anything is measured whether a report can be written. Raises what `write_report` raises."""
    require_plotly()
    # What is not there yet is made when there is something to put into it.
    place = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
    require_writable(place / PAGE, WHAT)


def write_report(report: ReportDocument, folder: Path, media_root: Path) -> list[Path]:
    """Write a report into a folder, which is made where it is missing; returns the files.

    The media are looked for in `media_root`, and copied from there where that is another folder. The page comes last:
    where there is a new one, all else is new as well. Raises UserError where plotly is missing, and what `whole_file`
    raises; then no file is half written, and those that are not new yet are still the old ones.
    """
    contents: dict[str, bytes] = {} if _is_same(folder, media_root) else _media(report, MediaRoot(media_root))
    contents |= {
        DOCUMENT: text(report).encode(),
        "report.md": markdown(report).encode(),
        "report.junit.xml": junit(report),
        "test-result.intoto.json": statement(report).encode(),
        PAGE: page(report, media_root).encode(),
    }
    written: list[Path] = []
    for name, content in contents.items():
        path = folder / name
        with reporting(path.parent, WHAT):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content, WHAT)
        written.append(path)
    return written


def _is_same(folder: Path, other: Path) -> bool:
    return folder.exists() and other.exists() and folder.samefile(other)


def _media(report: ReportDocument, root: MediaRoot) -> dict[str, bytes]:
    """All that the document names and that is there, by its path."""
    clips = [
        *(report.reference.media if report.reference else []),
        *(one for entry in report.bundles for one in entry.media),
    ]
    found = {name: root.read(name) for clip in clips for name in (clip.video, clip.strip)}
    return {name: content for name, content in found.items() if content is not None}
