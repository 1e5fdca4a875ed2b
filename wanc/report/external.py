"""What a scorer outside of wanc has said of a bundle's videos: VBench's `*_eval_results.json`.

It holds by dimension a list of two: the dimension's mean between 0 and 1, and what each video came to. The mean alone
is told: what is behind it is of another kind in each dimension.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from wanc.artifacts.files import opened_input
from wanc.errors import EXIT_DATA, UserError
from wanc.recipe.gates import DIMENSION, MEAN
from wanc.report.document import ExternalScores
from wanc.runtime.strict_json import MAX_BYTES, JsonValue, parse_object

HINT = "give the *_eval_results.json that VBench has written: dimension → [mean, [videos]]"
MOST_DIMENSIONS = 64


def read_scores(path: Path) -> ExternalScores:
    """The scores in a file of at most 16 MiB.

    Raises UserError where it cannot be read, is not JSON as `strict_json` has it, or holds something that is no score.
    """
    where = str(path)
    with opened_input(path) as descriptor, open(descriptor, "rb", closefd=False) as file:
        content = file.read(MAX_BYTES + 1)
    values = parse_object(content, where=where).values
    if not 1 <= len(values) <= MOST_DIMENSIONS:
        told = f"it has {len(values)} dimensions, and has to have 1 to {MOST_DIMENSIONS}"
        raise UserError(told, where=where, hint=HINT, exit_code=EXIT_DATA)
    dimensions = {name: _score(name, value, where) for name, value in values.items()}
    return ExternalScores(
        source=path.name.encode(errors="replace").decode(),  # a file's name may hold what is no text
        sha256=hashlib.sha256(content).hexdigest(),
        dimensions=dimensions,
        mean_percent=100 * sum(dimensions.values()) / len(dimensions),
    )


def _score(name: str, value: JsonValue, where: str) -> float:
    if (reason := _fault(name, value)) is not None:
        raise UserError(f"{ascii(name)[:80]} {reason}", where=where, hint=HINT, exit_code=EXIT_DATA)
    assert isinstance(value, list)
    return float(value[0])  # pyright: ignore[reportArgumentType]


def _fault(name: str, value: JsonValue) -> str | None:
    """Why a dimension is none; None where it is one."""
    if not DIMENSION.fullmatch(name) or name == MEAN:
        return "is no dimension's name"
    if not isinstance(value, list) or len(value) != 2:
        return "has to be a list of its mean and of its videos"
    mean, videos = value
    if isinstance(mean, bool) or not isinstance(mean, (int, float)):
        return "has a mean that is no number"
    if not 0 <= mean <= 1:
        return f"has a mean of {mean:g}, which is not between 0 and 1"
    if not isinstance(videos, list) or not videos:
        return "has no videos"
    if not all(isinstance(video, dict) and {"video_path", "video_results"} <= video.keys() for video in videos):
        return "has a video without video_path and video_results"
    return None
