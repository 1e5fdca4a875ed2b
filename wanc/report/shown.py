"""The videos of a report: of each of the first clips the reference's, and every bundle's beside it."""

from __future__ import annotations

from pathlib import Path

from wanc.report.document import ReportDocument
from wanc.report.make import Made
from wanc.report.media import write_media
from wanc.report.reference import ReferenceRecord

MOST_CLIPS = 4
"""That are shown: a page with many videos takes long to open, and is looked at by nobody."""


def with_media(made: Made, record: ReferenceRecord, folder: Path) -> ReportDocument:
    """Write what is to be seen below `folder`; the report, which names it then. Raises what `create_video` raises."""
    report = made.report
    if report.reference is None:
        return report
    fps, clips = report.reference.fps, record.clips[:MOST_CLIPS]
    originals = [write_media(folder, f"reference-{clip.number}", clip.frames, fps) for clip in clips]
    bundles = [
        entry.model_copy(
            update={
                "media": [
                    write_media(folder, f"bundle-{place}-{clip.number}", run.frames, fps, clip.frames)
                    for clip, run in zip(clips, made.runs[entry.name], strict=False)
                ]
            }
        )
        for place, entry in enumerate(report.bundles)
    ]
    reference = report.reference.model_copy(update={"media": originals})
    return report.model_copy(update={"reference": reference, "bundles": bundles})
