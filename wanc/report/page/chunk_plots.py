"""The plots of causal models' videos, chunk by chunk: what one chunk's error is, and what all of them come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wanc.report.document import ChunkError, ReportDocument
from wanc.report.page.drawing import FAINT, Plot, axis, line, logarithmic, plot
from wanc.report.values import floors_of
from wanc.report.wording import number


def chunks(report: ReportDocument) -> list[Plot]:
    """Of all bundles that are causal; none where there is none."""
    known = [(index, entry.name, entry.quality.chunks) for index, entry in enumerate(report.bundles) if entry.quality]
    found = [(index, name, chunks) for index, name, chunks in known if chunks]
    if not found:
        return []
    velocities = [
        _by_chunk(name, chunks, [one.velocity_error or None for one in chunks], index) for index, name, chunks in found
    ]
    latents = [_by_chunk(name, chunks, [one.sqnr_db for one in chunks], index) for index, name, chunks in found]
    edge = {"color": FAINT, "width": 1, "dash": "dot"}
    for floor in floors_of(report):
        numbers, values = [one.chunk for one in floor.chunks], [one.sqnr_db for one in floor.chunks]
        latents.append(line(f"noise floor, {floor.unit}", numbers, values, mode="lines", line=edge))
    last = "; ".join(f"{name} has {number(chunks[-1].velocity_error)}" for _, name, chunks in found)
    at_the_end = "; ".join(f"{name} has {number(chunks[-1].sqnr_db)} dB" for _, name, chunks in found)
    return [
        plot(
            "Error of the velocity of each chunk, behind the reference's own past",
            f"In the last chunk {last}.",
            velocities,
            xaxis=axis("chunk"),
            yaxis=logarithmic("relative error"),
            hovermode="x unified",
        ),
        plot(
            "SQNR of the latents of each chunk of a free run",
            f"In the last chunk {at_the_end}.",
            latents,
            xaxis=axis("chunk"),
            yaxis=axis("SQNR, dB – higher is better"),
            hovermode="x unified",
        ),
    ]


def _by_chunk(name: str, chunks: Sequence[ChunkError], values: Sequence[float | None], index: int) -> dict[str, Any]:
    told = [f"{number(one.velocity_error)}, {number(one.sqnr_db)} dB, PSNR {number(one.psnr_db)} dB" for one in chunks]
    numbers = [one.chunk for one in chunks]
    return line(name, numbers, values, index, hovertext=told, hoverinfo="text+name")
