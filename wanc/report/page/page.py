"""The report as one file of HTML, which asks for nothing outside itself and opens from a disk."""

from __future__ import annotations

import hashlib
import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from pathlib import Path
from string import Template

from wanc.errors import EXIT_UNAVAILABLE, UserError
from wanc.report.document import ReportDocument
from wanc.report.page import player, sections
from wanc.report.page.drawings import Drawings
from wanc.runtime.safe_read import opened_beneath

HERE = Path(__file__).parent
KINDS: Mapping[str, str] = {".mp4": "video/mp4", ".png": "image/png"}
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; media-src data:; "
    "style-src 'unsafe-inline'; script-src {scripts}"
)


def require_plotly() -> None:
    """Raises UserError where the library that draws the plots is missing."""
    if find_spec("plotly") is None:
        raise UserError("the report needs plotly", hint="pip install 'wanc[report]'", exit_code=EXIT_UNAVAILABLE)


def page(report: ReportDocument, media_root: Path) -> str:
    """The page, with the media that are found in `media_root` in it. Raises UserError as `require_plotly` does."""
    require_plotly()
    from plotly.offline import get_plotlyjs

    read, drawings = MediaRoot(media_root).data_uri, Drawings()
    videos = player.videos(report, read)
    body = sections.sections(report, read, drawings, videos)
    library = get_plotlyjs() if drawings.plots else ""
    scripts = [_script(library), _script((HERE / "page.js").read_text("utf-8"))]
    return Template((HERE / "template.html").read_text("utf-8")).substitute(
        policy=escape(POLICY.format(scripts=" ".join(map(_digest, scripts)))),
        title=escape(f"{sections.OUTCOMES[report.verdict.outcome].headline} – {report.title}"),
        style=(HERE / "style.css").read_text("utf-8"),
        verdict=sections.verdict(report),
        sections=body,
        plots=_data(drawings.json()),
        videos=_data(player.as_json(videos)),
        plotly=scripts[0],
        script=scripts[1],
    )


@dataclass(frozen=True)
class MediaRoot:
    """The folder that paths of media are relative to."""

    path: Path

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where it is not there, or leads elsewhere."""
        try:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            with opened_beneath(folder, name) as descriptor, open(descriptor, "rb", closefd=False) as file:
                return file.read()
        except OSError:
            return None
        finally:
            os.close(folder)

    def data_uri(self, name: str) -> str | None:
        """The same as text that stands for the file in a page; None as well for what is no video and no picture."""
        kind = KINDS.get(Path(name).suffix)
        content = self.read(name) if kind else None
        return None if content is None else f"data:{kind};base64,{b64encode(content).decode()}"


def _script(text: str) -> str:
    """A script that no part of itself ends."""
    return f"\n{text}\n".replace("</script", "<\\/script")


def _digest(script: str) -> str:
    """What a browser has to find of a script before it runs it, so that none runs that came with a text."""
    return f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _data(json: str) -> str:
    """JSON that ends no script: `<` occurs in its strings alone, where it can be written otherwise."""
    return json.replace("<", "\\u003c")
